"How many threads decode images at the same time."

number: int | None = None  # as --workers sets it for a command; None: one per core that this process may use


def decoding_threads() -> int:
    "Return the number of threads that decode images; they change no pixel."
    from joblib import cpu_count  # takes a moment to import, which images in the cache do not need

    return number or cpu_count()
