"What can go wrong and whose turn it is: every error a user can mend ends in one line and its exit status."

SHOWN = 10 # names in an error


class KdfastError(Exception):
    "Something the user can fix: what, where, found against expected, what to do."
    exit_status = 2

    def __init__(self,
        message:str, # One line, without a full stop's worth of mystery
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
