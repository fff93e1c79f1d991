"Freed memory is kept for the next allocation, unless the user has set that otherwise."

import subprocess
import sys

import pytest

from kdfast.core.memory import USERS_OWN, keep_freed_memory

PAGES = """
import resource, sys
import numpy as np
from kdfast.core.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not this C library")
def fault():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24, np.uint8)  # allocated, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = fault()
print(first, max(fault() for _ in range(5)))
"""


def page_faults(how):
    "Those of the first allocation of 16 MiB, and the most of the next"
    done = subprocess.run([sys.executable, '-c', PAGES, how], capture_output=True, text=True)
    if 'not this C library' in done.stderr:
        pytest.skip('the C library has no such setting')
    return map(int, done.stdout.split())


def test_an_allocation_gets_the_memory_of_the_one_before():
    first, then = page_faults('keep')
    assert then < first / 10


@pytest.mark.parametrize('name', USERS_OWN)
def test_the_users_settings_stay(name):
    assert not keep_freed_memory({name: '1'})
