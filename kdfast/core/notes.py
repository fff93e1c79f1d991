"Notes on what was done to the data: counted, with one example each; and printed once."

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LISTED = ContextVar('listed', default=False)  # whether the caller of `load` lists all notes itself


class Notes:
    "Count events that are no errors but that a user should know of."

    def __init__(self):
        self.examples = defaultdict(list)

    def add(
        self,
        what: str,  # The event
        name: str,  # What it happened to, such as a file; may be empty
    ):
        "Record an event."
        self.examples[what].append(name)

    def messages(self) -> list[str]:
        "Return one message per kind of event, with its count and its first example."
        return [self._message(what, names) for what, names in self.examples.items()]

    @staticmethod
    def _message(what, names):
        if not names[0]:
            return what
        return f'{what}: {len(names):,} ({names[0]}{", …" if len(names) > 1 else ""})'


def print_note(
    note: str,  # One line
):
    "Print a note to stderr, unless it will be listed."
    if not LISTED.get():
        say(note)


def say(
    note: str,  # One line
):
    "Print a note to stderr."
    print(f'kdfast: {note}', file=sys.stderr)


@contextmanager
def notes_listed() -> Iterator[None]:
    "Print no notes in the context: whoever opened it lists them all."
    token = LISTED.set(True)
    try:
        yield
    finally:
        LISTED.reset(token)
