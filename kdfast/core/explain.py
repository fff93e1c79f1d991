"Turn exceptions of the user's code into one-line errors that name the line. Imports no torch."

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from kdfast.core.errors import KdfastError
from kdfast.core.signals import Interrupted

PREFIX = 'kdfast_user_'  # of the private names of the user's modules


@contextmanager
def errors_explained(
    doing: str,  # The current step, for the error
    project: object | None,  # The `Project` whose code runs
) -> Iterator[None]:
    "Convert any exception of the user's code, but no signal, to a KdfastError with file and line."
    try:
        yield
    except (KdfastError, Interrupted):
        raise
    except SyntaxError as e:
        raise KdfastError(f'{e.filename or doing}, line {e.lineno}: {e.msg}') from e
    except (Exception, SystemExit) as e:
        raise KdfastError(f'{doing}: {error_reason(e)}{error_line(e, project)}') from e


def error_reason(
    error: BaseException,  # Any exception
) -> str:
    """Describe an exception of a network by the first line of its message.

    If that ends with a colon, the second line is used. The class is added unless the message is expected to be clear
    without it.
    """
    lines = re.sub(rf'{PREFIX}\w+\.', '', str(error)).strip().splitlines() or ['']
    message = (lines[1].strip() if lines[0].endswith(':') and lines[1:] else lines[0]).rstrip('.')
    if message and isinstance(error, ImportError | TypeError | ValueError | RuntimeError | AssertionError):
        return message
    return f'{type(error).__name__}: {message}'


def error_line(
    error: BaseException,  # Any exception
    project,  # The kdfast.core.projects.Project whose code ran; None without one
) -> str:  # " (FILE, line N)"; empty if no frame is in the project
    "Locate an exception in a project."
    files = {str(project.file(name)): name for name in project.sources} if project else {}
    lines = [
        (files[frame.f_code.co_filename], number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in files
    ]
    return f' ({lines[-1][0]}, line {lines[-1][1]})' if lines else ''
