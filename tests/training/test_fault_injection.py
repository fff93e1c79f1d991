"""A small slice of the slow suite, which is `python tests/slow/fault_injection.py`.

Other tests prove what is left out: kills, checkpoints and the change of stage (test_resume.py, test_streaming.py),
signals (test_signals.py), NaN and infinity (test_record.py).
"""

import subprocess
import sys
from pathlib import Path

NAMES = ('failures', 'damage', 'starters', 'disk')


def test_faults_at_random_moments_change_no_result():
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / 'slow' / 'fault_injection.py', *NAMES, '--share', '.005'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(NAMES), done.stdout + done.stderr
