"What can go wrong and whose turn it is: every error a user can mend ends in one line and its exit status."

import traceback

SHOWN = 10  # names in an error


class KdfastError(Exception):
    "Something the user can fix: what, where, found against expected, what to do."

    exit_status = 2

    def __init__(
        self,
        message: str,  # One line, without a full stop's worth of mystery
    ):
        super().__init__(message)
        self.message = message  # fastai rewrites `args` of what a callback raises


class Locked(KdfastError):
    "Another process is writing this run."

    exit_status = 3


class Diverged(KdfastError):
    "A loss became infinite or not a number: there is no result."

    exit_status = 4


def listed(names, between=', '):
    "The first few of many"
    return between.join(names[:SHOWN]) + (f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else '')


# Errors that are not ours

IN_CALLBACK = 'Exception occured in `'  # how fastai begins the message of what a callback raised


MEMORY = 'out of memory', "can't allocate memory", 'not enough memory'
DEVICE = 'AcceleratorError', 'DistBackendError', 'DistNetworkError', 'DistStoreError'  # torch's
DEVICE_SAYS = 'CUDA error', 'CUDNN_STATUS', 'cuDNN error', 'NCCL', 'Connection closed by peer'


def reason(
    error: BaseException,
) -> str:
    "An error in one line: its kind and the first line of its message, without what fastai puts in front of that."
    if isinstance(error, KdfastError):
        return error.message
    error = raised(error)
    said = (
        error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else str(error)
    )  # a KeyError quotes its own
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith(IN_CALLBACK)]
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def raised(error):
    "What a callback raised; for an error without a message fastai raises an IndexError, as it looks for one"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    lost = (
        isinstance(error, IndexError)
        and error.__context__
        and last
        and last[0].name == '__call__'
        and last[0].filename.endswith('fastai/callback/core.py')
    )
    return error.__context__ if lost else error


def users_line(
    error: BaseException,
) -> str:  # FILE, line N; nothing where none of it is the user's
    "Where in the user's own code, a recipe or a network, an error was raised."
    frames = traceback.extract_tb(raised(error).__traceback__)
    own = [frame for frame in frames if is_users(frame.filename)]
    return f'{own[-1].filename}, line {own[-1].lineno}' if own else ''


def is_users(file):
    from kdfast.core.installed import is_installed  # which stands on this module

    return not (file.startswith('<') or is_installed(file))


def misfortune(
    error: BaseException,
) -> str:  # What happened and what to do; nothing for any other error
    "The words for a memory that is full and a device that failed, which no recipe can be blamed for."
    said = str(error)
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == 'OutOfMemoryError'
        or any(words in said for words in MEMORY)
    ):
        return f'out of memory ({reason(error)}): end what else uses it, or take smaller networks or images (--size)'
    if type(error).__name__ in DEVICE or any(words in said for words in DEVICE_SAYS):
        return f'the device, or the connection to it, failed ({reason(error)})'
    return ''
