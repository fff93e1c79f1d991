"""A temporary directory for rehearsals, and a process that is restored afterwards."""

import errno
import gc
import io
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from kdfast.core import distributed, signals
from kdfast.core.errors import KdfastError
from kdfast.models.random_states import random_states_kept


@contextmanager
def rehearsal_stage() -> Iterator[Path]:
    """Create a temporary directory for a rehearsal; restore the process afterwards.

    Restores random states, warnings, signal handlers and GPU memory. Output is suppressed.

    Raises KdfastError if the disk of the directory is full.
    """
    with ExitStack() as cleanup:
        directory = cleanup.enter_context(tempfile.TemporaryDirectory(prefix='kdfast-'))
        if torch.accelerator.is_available():
            cleanup.callback(gc.collect)  # networks and optimizers are in reference cycles and would fill GPU memory
        cleanup.enter_context(same_random())
        cleanup.enter_context(same_signals())
        cleanup.enter_context(distributed.as_single_process())
        cleanup.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        for redirect in (redirect_stdout, redirect_stderr):
            cleanup.enter_context(redirect(io.StringIO()))
        try:
            yield Path(directory)
        except OSError as e:
            if e.errno != errno.ENOSPC or directory not in str(e.filename):
                raise
            raise KdfastError(
                f'{e.strerror}: {tempfile.gettempdir()} is full; a network is saved there for a trial. '
                'Free some space, or set TMPDIR to another directory'
            ) from e


@contextmanager
def same_random():
    "Restore all random states and the settings of cuDNN afterwards."
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        with random_states_kept():
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = flags


@contextmanager
def same_signals():
    "Restore the signal handlers afterwards."
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signals.MESSAGES} if in_main_thread else {}
    try:
        yield
    finally:
        signals.training = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
