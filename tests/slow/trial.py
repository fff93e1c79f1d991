"What the suites share: cases are tried one after the other, and counted."

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable

os.environ.setdefault('OMP_NUM_THREADS', '1')
warnings.filterwarnings('ignore')


class Skipped(Exception):
    "The case cannot be tried: what it is about does not work without kdfast either"


def run(
    suite: str,  # Its name
    cases: Iterable[tuple[str, Callable]],  # Name of each, and what fails with an exception
):
    "Try all of them, or those that the command line chooses, and say how many passed; exit status 1 where one failed."
    passed, tried, skipped, words = 0, 0, 0, sys.argv[1:]
    for name, case in cases:
        if words and not any(word in name for word in words):
            continue
        try:
            case()
            passed += 1
        except Skipped as e:
            skipped, tried = skipped + 1, tried - 1
            print(f'skip {name}: {e}', flush=True)
        except Exception as e:
            print(f'FAIL {name}: {type(e).__name__}: {" ".join(str(e).split())[:600]}', flush=True)
            if os.environ.get('TRACE'):
                traceback.print_exc()
        tried += 1
        if tried % 25 == 0:
            print(f'… {passed}/{tried}', flush=True)
        gc.collect()
    print(f'{suite}: {passed}/{tried} passed' + (f', {skipped} left out' if skipped else ''))
    sys.exit(passed < tried)
