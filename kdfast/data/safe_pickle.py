"Load pickles that hold nothing but arrays of numbers, lists and text. No code of the pickle is run."

import codecs
import pickle
from collections.abc import Callable

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.files import READ_ERRORS

# What a damaged file, or one of another kind, raises
PICKLE_ERRORS = (
    *READ_ERRORS,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    OverflowError,
    MemoryError,
)


def load_pickle(
    open_file: Callable,  # Return the file, opened for binary reading
    where: str,  # Name of the file in errors
) -> dict:
    "Load a dict of arrays, lists and text. Raises KdfastError for a pickle of anything else."
    try:
        with open_file() as file:
            content = _Unpickler(file, encoding='bytes').load()
    except PICKLE_ERRORS as e:
        raise KdfastError(f'{where} is not a batch of CIFAR, or is damaged ({e})') from e
    if not isinstance(content, dict):
        raise KdfastError(f'{where} is not a batch of CIFAR: expected a dict, found {type(content).__name__}')
    return {key.decode(errors='replace') if isinstance(key, bytes) else key: value for key, value in content.items()}


class _Unpickler(pickle.Unpickler):
    "Creates built-in values and arrays of numbers only"

    def find_class(self, module, name):
        module = module.removeprefix('numpy.').removeprefix('_core.').removeprefix('core.')
        allowed = ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f'it would run {module}.{name}')
        return allowed


class _Array(np.ndarray):
    "An array that refuses Python objects when its content is set"

    def __setstate__(self, state):
        _check_numbers(np.dtype(state[2]))
        super().__setstate__(state)


def _check_numbers(dtype):
    if dtype.hasobject:
        raise pickle.UnpicklingError('an array of Python objects')


def _reconstruct(kind, shape, typecode):
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _frombuffer(content, dtype, shape, order):
    _check_numbers(dtype)
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _dtype(code, *flags):
    dtype = np.dtype(code.decode() if isinstance(code, bytes) else code)
    _check_numbers(dtype)
    return dtype


def _encode(text, encoding='latin1'):
    if codecs.lookup(encoding).name not in ('iso8859-1', 'utf-8', 'ascii'):
        raise pickle.UnpicklingError(f'text in {encoding}')
    return text.encode(encoding)


# What a pickle may name, by (module, name); modules of NumPy without numpy.core. or numpy._core.
ALLOWED = {
    ('multiarray', '_reconstruct'): _reconstruct,
    ('numpy', 'ndarray'): _Array,
    ('numpy', 'dtype'): _dtype,
    ('numeric', '_frombuffer'): _frombuffer,
    ('_codecs', 'encode'): _encode,
}
