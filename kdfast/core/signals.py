"Ctrl-C and SIGTERM, with manners: a step under way is finished and kept first; a second signal ends at once."

import os
import signal
import threading

from kdfast.core import distributed

SAID = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}
DRIVEN = 'KDFAST_DRIVEN'  # set for the runs of a study
asked = None  # The signal that came, if one has
training = False  # Whether a fit is under way, which will call `leave` between two steps


class Interrupted(SystemExit):
    "A signal asked to end."

    def __init__(
        self,
        number: int,  # Of the signal
    ):
        super().__init__(128 + number)
        self.said = SAID[number]


def listen():
    "From now on, in the main thread, signals end what is under way."
    global asked
    asked = None
    for number in SAID:
        signal.signal(number, hear)
    if driven():
        threading.Thread(target=end_with_the_study, daemon=True).start()


def driven() -> bool:
    "Whether this process is a run of a study."
    return bool(os.environ.get(DRIVEN))


def hear(number, _):
    "The first signal waits for the step, if there is one; any other has waited enough"
    global asked
    patient = distributed.rank or training and asked is None  # the first of several processes ends them all
    asked = number
    if not patient:
        raise Interrupted(number)


def leave():
    "Raise Interrupted if a signal asked for it."
    if asked and not distributed.rank:
        raise Interrupted(asked)


def end_with_the_study():
    "The study holds the other end of standard input, which closes with it, however it ends"
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
