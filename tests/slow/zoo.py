"""Run an exhaustive suite: `python tests/slow/zoo.py SUITE [WORD …]` runs tests/slow/SUITE.py; words select cases.

Each prints a line for each case that fails, and at the end how many passed of how many were tried.
"""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main():
    suites = sorted(
        file.stem for file in HERE.glob('*.py') if file != Path(__file__).resolve() and 'def cases' in file.read_text()
    )
    if len(sys.argv) < 2 or not (HERE / f'{sys.argv[1]}.py').is_file():
        sys.exit(f'{__doc__}\nSuites: {", ".join(suites)}')
    del sys.argv[0]
    sys.path.insert(0, str(HERE.parent))
    import paths  # noqa: F401

    runpy.run_path(str(HERE / f'{sys.argv[0]}.py'), run_name='__main__')


if __name__ == '__main__':
    main()
