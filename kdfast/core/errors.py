"Errors that a user can fix, each with its exit status, and one-line messages for all others."

import traceback

LIST_LIMIT = 10  # names in a message


class KdfastError(Exception):
    "An error that the user can fix: the value found, the values allowed, and what to do."

    exit_status = 2

    def __init__(
        self,
        message: str,  # One line
    ):
        super().__init__(message)
        self.message = message  # fastai rewrites the `args` of exceptions raised in callbacks


class Locked(KdfastError):
    "Another process is training this run."

    exit_status = 3


class Diverged(KdfastError):
    "A loss became infinite or NaN, so that the run has no result."

    exit_status = 4


def listed(
    names: list[str],  # Any number
    between: str = ', ',  # Separator
) -> str:
    "Join the first ten names, followed by the number of the others."
    return between.join(names[:LIST_LIMIT]) + (
        f' and {len(names) - LIST_LIMIT:,} more' if len(names) > LIST_LIMIT else ''
    )


# Exceptions of other libraries

IN_CALLBACK = 'Exception occured in `'  # the start of the line that fastai adds to exceptions from callbacks
OUT_OF_MEMORY = 'out of memory', "can't allocate memory", 'not enough memory', 'STATUS_ALLOC_FAILED'
DEVICE_ERRORS = (
    'AcceleratorError',
    'DistBackendError',
    'DistNetworkError',
    'DistStoreError',
)  # exception classes of torch
DEVICE_MESSAGES = 'CUDA error', 'CUDNN_STATUS', 'cuDNN error', 'NCCL', 'Connection closed by peer'


def reason(
    error: BaseException,  # Any exception
) -> str:
    "Describe an exception in one line: its class and the first line of its message."
    if isinstance(error, KdfastError):
        return error.message
    error = original_error(error)
    has_text = len(error.args) == 1 and isinstance(error.args[0], str)
    message = error.args[0] if has_text else str(error)  # str of a KeyError adds quotes
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(IN_CALLBACK)]
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def original_error(
    error: BaseException,  # Any exception
) -> BaseException:
    "Return what a callback raised; if that had no message, fastai raises an IndexError in its place."
    last = traceback.extract_tb(error.__traceback__)[-1:]
    replaced = (
        isinstance(error, IndexError)
        and error.__context__
        and last
        and last[0].name == '__call__'
        and last[0].filename.endswith('fastai/callback/core.py')
    )
    return error.__context__ if replaced else error


def users_line(
    error: BaseException,  # Any exception
) -> str:  # FILE, line N; empty if no frame is in the user's code
    "Locate an exception in the user's own code, such as a recipe or a network."
    frames = traceback.extract_tb(original_error(error).__traceback__)
    own = [frame for frame in frames if is_users_file(frame.filename)]
    return f'{own[-1].filename}, line {own[-1].lineno}' if own else ''


def is_users_file(
    file: str,  # File name of a traceback's frame
) -> bool:
    "Return whether a file is the user's, not Python's, kdfast's or an installed package's."
    from kdfast.core.installed import is_installed  # slow to import, and needed for errors alone

    return not (file.startswith('<') or is_installed(file))


def resource_failure(
    error: BaseException,  # Any exception
) -> str:  # What happened and what to do; empty for any other exception
    "Describe exhausted memory or a failed device, which are no defect of the recipe."
    message = str(error)
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == 'OutOfMemoryError'
        or any(text in message for text in OUT_OF_MEMORY)
    ):
        return (
            f'out of memory ({reason(error)}): '
            'stop other programs, or use smaller batches (--batch-size), networks or images (--size)'
        )
    if type(error).__name__ in DEVICE_ERRORS or any(text in message for text in DEVICE_MESSAGES):
        return f'the device, or the connection to it, failed ({reason(error)})'
    return ''
