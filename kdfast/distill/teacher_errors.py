"""What is said of a teacher that cannot compute what the student is trained on."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from kdfast.core.errors import KdfastError, reason, resource_failure
from kdfast.core.format import shape_text


@contextmanager
def computing(
    xb: tuple,  # A batch of inputs
) -> Iterator[None]:
    "Raise KdfastError if the teacher fails for a batch, except where memory or device fail."
    try:
        yield
    except Exception as e:  # networks of users may raise anything for inputs of another size or format
        if isinstance(e, KdfastError) or resource_failure(e):
            raise
        shapes = ', '.join(shape_text(x.shape) for x in xb if isinstance(x, Tensor))
        raise KdfastError(
            f"the teacher cannot compute the student's batch of {shapes} ({reason(e)}): use a teacher for inputs of "
            'this size and format, or wrap it in a module that converts them'
        ) from e
