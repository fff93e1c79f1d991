"Files are UTF-8 and terminals have any encoding, whatever the locale is."

import ast
import os
import subprocess
from pathlib import Path

import pytest

from kdfast.study.tasks import KDFAST

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / 'kdfast').rglob('*.py'), *(ROOT / 'recipes').rglob('*.py'), ROOT / 'cli.py']


def opens_text_in_any_encoding(call):
    "Whether a call opens a text file in the encoding of the locale"
    name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
    if any(keyword.arg == 'encoding' for keyword in call.keywords):
        return False
    if name in ('read_text', 'write_text') and isinstance(call.func, ast.Attribute):
        return len(call.args) < (1 if name == 'read_text' else 2)
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name == 'open' and any(set(mode) <= set('rwax+t') and mode for mode in modes)


def test_no_text_is_read_or_written_in_the_encoding_of_the_locale():
    found = [
        f'{file.relative_to(ROOT)}:{node.lineno}'
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text('utf-8')))
        if isinstance(node, ast.Call) and opens_text_in_any_encoding(node)
    ]
    assert not found


PLAIN = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')


@pytest.mark.parametrize('variables', [PLAIN, dict(PYTHONIOENCODING='latin-1'), dict(PYTHONIOENCODING='cp1252')])
def test_a_run_in_another_encoding(images, tmp_path, variables):
    "Its summary has an arrow, its recipe an umlaut"
    (tmp_path / 'mine.py').write_text(
        '"Größe → Ziel"\nfrom kdfast.all import *\nfrom kdfast.recipes import baseline\n'
        "def main(run: Run, art: str = 'größer'):\n    run.say(art)\n    return baseline.main(run, epochs=1)\n",
        'utf-8',
    )
    command = [*KDFAST, 'run', str(tmp_path / 'mine.py'), '--data', str(images), '--runs', str(tmp_path / 'runs')]
    for _ in range(2):  # the second time it is finished
        done = subprocess.run(command, capture_output=True, env=os.environ | variables | dict(OMP_NUM_THREADS='1'))
        assert done.returncode == 0, done.stderr
        assert rb'\u2192' in done.stdout
