"A small slice of the slow suite, which is `python tests/slow/fault_injection.py`."

import subprocess
import sys
from pathlib import Path

NAMES = ('kill', 'checkpoint', 'stages', 'failures', 'damage', 'signals', 'starters', 'nan', 'disk')


def test_a_slice():
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / 'slow' / 'fault_injection.py', *NAMES, '--share', '.02'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(NAMES), done.stdout + done.stderr
