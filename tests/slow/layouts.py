"""Layouts × containers × formats: each is written, read and compared with what was written. Prints read/tried.

    python tests/slow/layouts.py            all of it
    python tests/slow/layouts.py sources    one part: table, sources, refused
"""
import os
import sys
import tempfile
from collections import defaultdict
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory(prefix='layouts-')
os.environ['XDG_CACHE_HOME'] = f'{SCRATCH.name}/cache'
sys.path.insert(0, str(Path(__file__).parents[1]))

import shutil

import written
from kdfast.data import load
from kdfast.errors import KdfastError


def attempt(make, **options):
    "What is wrong with what was read; nothing where it is right"
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    try:
        with redirect_stderr(StringIO()):
            path,compare = make(folder/'photos')
            return compare(load(str(path), **options))
    except KdfastError as e: return e.message
    except Exception as e: return f'{type(e).__name__}: {e}'
    finally: shutil.rmtree(folder), shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


def table():
    "Rows of layouts, columns of containers: of how many formats"
    counts,wrong = defaultdict(int),[]
    for layout in written.LAYOUTS:
        for container,put in written.CONTAINERS.items():
            for kind in written.FORMATS:
                said = attempt(lambda path: (put(path, written.files_of(layout, kind)), lambda data: written.right(data, layout, kind)))
                counts[layout, container] += not said
                if said: wrong.append(f'{layout}, {container}, {kind}: {said[:200]}')
    width = max(map(len, written.LAYOUTS))
    print(' '*width, *written.CONTAINERS, sep=' | ')
    for layout in written.LAYOUTS: print(f'{layout:{width}}', *(f'{f"{counts[layout, c]}/{len(written.FORMATS)}":>{len(c)}}' for c in written.CONTAINERS), sep=' | ')
    n = len(written.LAYOUTS)*len(written.CONTAINERS)*len(written.FORMATS)
    return n - len(wrong),n,wrong


def sources():
    "Forms of their own, in every container"
    wrong,n = [],0
    for name,(make,splits,how) in written.SOURCES.items():
        for container,put in written.CONTAINERS.items():
            n += 1
            said = attempt(lambda path: (put(path, make()), lambda data: written.compare(data, splits, **how)))
            if said: wrong.append(f'{name}, {container}: {said[:200]}')
    for name,(make,splits) in written.ARRAYS.items():
        n += 1
        said = attempt(lambda path: (next(written.to_folder(path, make()).iterdir()), lambda data: written.compare(data, splits, classes=['0', '1', '2'])))
        if said: wrong.append(f'{name}: {said[:200]}')
    return n - len(wrong),n,wrong


def refused():
    "What is not read: the error has the cause and the remedy"
    wrong = []
    for name,(files,words) in written.REFUSED.items():
        said = attempt(lambda path: (written.to_folder(path, files()), lambda data: 'it was read'))
        if not all(word in said for word in words): wrong.append(f'{name}: {said[:300]}')
    return len(written.REFUSED) - len(wrong),len(written.REFUSED),wrong


PARTS = dict(table=table, sources=sources, refused=refused)

if __name__ == '__main__':
    failed = 0
    for name in sys.argv[1:] or PARTS:
        done,tried,wrong = PARTS[name]()
        print(*wrong, sep='\n')
        print(f'{name}: {done}/{tried} {"named with cause and remedy" if name == "refused" else "read"}')
        failed += len(wrong)
    sys.exit(bool(failed))
