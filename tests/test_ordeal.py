"A small slice of the slow suite, which is `python tests/ordeal.py`."
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize('names,share', [(('kill', 'checkpoint', 'stages', 'damage', 'signals', 'starters', 'nan'), .02), (('disk',), .03)])
def test_a_slice(names, share):
    done = subprocess.run([sys.executable, Path(__file__).with_name('ordeal.py'), *names, '--share', str(share)], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(names), done.stdout + done.stderr
