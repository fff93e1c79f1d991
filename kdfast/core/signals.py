"Handle Ctrl-C and SIGTERM: save the current step, then exit; exit at once on a second signal."

import os
import signal
import threading

from kdfast.core import distributed

MESSAGES: dict[int, str] = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}
STUDY_CHILD = 'KDFAST_DRIVEN'  # environment variable of the runs that a study starts
received = None  # the last signal, if there was one
training = False  # whether a fit is running, which calls `raise_if_received` between two steps


class Interrupted(SystemExit):
    "A signal has ended the program; the exit status is 128 + its number."

    def __init__(
        self,
        number: int,  # Of the signal
    ):
        super().__init__(128 + number)
        self.message = MESSAGES[number]


def install_handlers():
    "Handle SIGINT and SIGTERM from now on. Call it in the main thread."
    global received
    received = None
    for number in MESSAGES:
        signal.signal(number, handle_signal)
    if is_study_child():
        threading.Thread(target=end_with_the_study, daemon=True).start()


def is_study_child() -> bool:
    "Return whether a study has started this process."
    return bool(os.environ.get(STUDY_CHILD))


def handle_signal(
    number: int,  # Of the signal
    _,  # The interrupted stack frame
):
    "Record a signal; raise Interrupted unless a step is running and this is the first signal."
    global received
    wait = distributed.rank or training and received is None  # rank 0 ends all processes of a distributed run
    received = number
    if not wait:
        raise Interrupted(number)


def raise_if_received():
    "Raise Interrupted if there was a signal."
    if received and not distributed.rank:
        raise Interrupted(received)


def end_with_the_study():
    "Terminate this process when standard input closes: the study holds its other end until it ends."
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
