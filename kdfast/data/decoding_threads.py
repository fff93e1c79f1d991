"How many threads decode images at the same time."

from kdfast.core.cores import usable_cores

number: int | None = None  # as --workers sets it for a command; None: one per core that this process may use


def decoding_threads() -> int:
    "Return the number of threads that decode images; they change no pixel."
    return number or usable_cores()
