"Where the tests' own modules lie, for suites that run as scripts: import this first."

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
FOLDERS = [TESTS, *(TESTS / name for name in ('data', 'distill', 'models', 'training', 'slow'))]
sys.path[:0] = [str(folder) for folder in FOLDERS if str(folder) not in sys.path]
