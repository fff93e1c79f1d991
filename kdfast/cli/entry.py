"""Run the command line: every error becomes one line on stderr and an exit status."""

import sys
from io import TextIOWrapper

from kdfast.cli.app import app, err
from kdfast.cli.recipes import SHARED_NAMES
from kdfast.core import distributed, signals
from kdfast.core.errors import KdfastError, reason, users_line

CONTINUE = 'repeat the command to continue'


def main():
    """Run the command line, and exit with its status.

    0 done, 2 the user can fix it, 3 another process trains the run, 4 diverged, 130 and 143 interrupted, 1 a bug.
    """
    escape_what_the_terminal_lacks()
    debug = '--debug' in sys.argv
    sys.argv = [word for word in sys.argv if word != '--debug']
    signals.install_handlers()
    try:
        exit_status = app(standalone_mode=False)
    except signals.Interrupted as e:
        print_error(f'{e.message}; {CONTINUE}')
        exit_status = e.code
    except Exception as error:
        if debug:
            raise
        exit_status, message = describe(error)
        if distributed.rank and not signals.received and not raised_everywhere(error):
            sys.stderr = sys.__stderr__  # only this one of several processes knows of the error
        print_error(message)
    sys.exit(exit_status)


def escape_what_the_terminal_lacks():
    "Print characters that the encoding of the terminal or file lacks as escapes, instead of failing."
    stream = sys.stdout
    if isinstance(stream, TextIOWrapper) and (stream.errors == 'strict' or stream.encoding.lower() != 'utf-8'):
        stream.reconfigure(errors='backslashreplace')


def raised_everywhere(
    error,  # The exception
):
    "Return whether all processes of a distributed run raise the error, so that the first reports it."
    return isinstance(error, (KdfastError, OSError)) or is_usage_error(error)


def print_error(
    message: str,  # Control characters in it, as in a file's name, are escaped
):
    "Print the message as one line on stderr."
    printable = ''.join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    err.print(f'kdfast: error: {printable}', style='red', soft_wrap=True, markup=False)


def describe(
    error: Exception,  # From a command
) -> tuple[int, str]:
    "Return the exit status and the message of an error."
    if isinstance(error, KdfastError):
        return error.exit_status, error.message
    if is_usage_error(error):
        return 2, usage_message(error)
    if isinstance(error, OSError) and error.filename:
        return 2, f'{error.filename}: {error.strerror}'
    notes = '. '.join(['', *getattr(error, '__notes__', [])])
    if where := users_line(error):
        return 2, f'{where}: {reason(error)}{notes}'
    return 1, f'{reason(error)}; this is a bug in kdfast: --debug shows the traceback{notes}'


def is_usage_error(
    error,  # The exception
):
    "Return whether click raised it for a wrong command line. Newer Typer has a private copy of click."
    return hasattr(error, 'format_message')


def usage_message(
    error,  # A usage error
):
    "Return the message of a usage error; for an unknown option of a recipe, with the most similar one."
    command = error.ctx.command if getattr(error, 'ctx', None) else None
    if type(error).__name__ == 'NoSuchOption' and hasattr(command, 'recipe'):
        return command.recipe.unknown(error.option_name.lstrip('-'), SHARED_NAMES).message
    return error.format_message()
