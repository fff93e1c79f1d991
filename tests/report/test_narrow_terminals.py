"No word and no number of a table is cut, however narrow the terminal is."

import io
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import make
from rich.console import Console
from rich.text import Text
from test_summary import IMAGES, STUDENT, TEACHER, summary, teach

import kdfast
from kdfast.cli import results
from kdfast.core.tables import Table
from kdfast.report.confusion import heat_map
from kdfast.runs.run_dir import RunDir

WIDTHS = range(20, 130, 5)


def shown(renderable, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize('several', [True, False])
@pytest.mark.parametrize('columns', [30, 60, 80])
def test_reasons_that_are_wider_than_the_table_are_below_it(tmp_path, kdfast, monkeypatch, columns, several):
    for recipe in ('baseline', 'kd'):
        make(tmp_path, recipe, 0, right=[1])
    (tmp_path / 'pets' / 'kd' / '0' / 'result.json').write_text('')
    if several:
        make(tmp_path, 'kd', 0, 'zoo', status='failed')
    monkeypatch.setattr(results.out, '_width', columns)
    lines = kdfast('ls', '--runs', tmp_path).out.splitlines()
    [at] = [n for n, line in enumerate(lines) if 'kd, seed 0: damaged' in line]
    assert lines[at].startswith('pets: ' * several + 'kd, seed 0: damaged') and not lines[at - 1].strip()
    assert 'result.jsonhaschangedsinceitwaswritten:remove' in ''.join(''.join(lines[at:]).split())
    assert [line.startswith('zoo: kd, seed 0: failed') for line in lines].count(True) == several
    assert all(len(line.rstrip()) <= max(columns, len(f'({tmp_path}/pets/kd/0/result.json')) for line in lines)


@pytest.mark.parametrize('columns', [30, 60, 80, 160])
def test_a_command_is_whole_and_its_sentence_is_wrapped(tmp_path, kdfast, monkeypatch, columns):
    for recipe in ('baseline', 'kd'):
        make(tmp_path, recipe, 0, right=[1])
    monkeypatch.setattr(results.out, '_width', columns)
    monkeypatch.setattr(results.out, '_force_terminal', True)
    monkeypatch.setattr(results.out, '_color_system', None)
    done = kdfast('compare', '--runs', tmp_path)
    done.out = re.sub('\x1b[[][0-9;]*m', '', done.out)
    command = f'kdfast compare --against baseline --runs {tmp_path}'
    lines = [line for line in done.out.splitlines() if command in line]
    if len(f'{command} tells which differences exceed chance.') <= columns:
        assert lines == [f'{command} tells which differences exceed chance.']
    else:
        assert lines == [command] and 'Which differences exceed chance is told by' in ' '.join(done.out.split())
    assert all(len(line.rstrip()) <= columns for line in done.out.splitlines() if command not in line), done.out


@pytest.mark.parametrize('columns', [16, 30, 80])
def test_a_data_set_is_described_in_lines_of_the_terminal(kdfast, images, monkeypatch, columns):
    monkeypatch.setattr(results.out, '_width', columns)
    monkeypatch.setattr(results.out, '_force_terminal', True)
    monkeypatch.setattr(results.out, '_color_system', None)
    text = re.sub('\\x1b[[][0-9;]*m', '', kdfast('check', images).out)
    *lines, command = text.rstrip().splitlines()
    assert 'kdfast study baseline kd --data' in command and command.endswith(str(images))
    assert all(len(line.rstrip()) <= max(columns, len(str(images)) + 1) for line in lines), lines
    assert '• training' in text and 'turn this' in ' '.join(text.split())
    if columns == 16:  # a list
        assert [line.split() for line in lines if line.strip() in ('ape', 'training 24', 'validation 12')][:3] == [
            ['ape'],
            ['training', '24'],
            ['validation', '12'],
        ]


@pytest.mark.parametrize('width', [30, 60, 80, 120])
def test_heads_of_a_confusion_matrix_are_whole(width):
    classes = [f'automobile{n}' for n in 'abcdefghij']
    counts = np.full((10, 10), 3).tolist()
    lines = heat_lines_of(dict(confusion=counts, classes=classes), width)
    heads = lines[0].split()
    assert heads == (classes if width >= 11 * 12 else [str(n + 1) for n in range(len(heads))])
    assert all(f'{n} automobile' in line or width < 60 for n, line in zip(heads, lines[1:]) if heads != classes)
    assert all(len(line) <= width for line in lines[: len(heads) + 1]) and len(heads) >= 4


def heat_lines_of(found, width):
    return [line for part in heat_map(found, width).renderables for line in [part.plain]]


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('no_wrap', [True, False])
@pytest.mark.parametrize('more', [0, 1, 4])
def test_every_word_and_number_is_whole(width, no_wrap, more):
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column('accuracy by class', no_wrap=no_wrap)
    for n in range(more):
        table.add_column(f'interval {n}', justify='right', no_wrap=no_wrap)
    table.add_column('verdict')
    for name in ('aeroplane', 'automobile'):
        table.add_row(Text(name), *['12.34 … 56.78'] * more, 'undecided: needs seeds')
    lines = shown(table, width)
    text = ' '.join(' '.join(lines).split())
    assert '…' not in text.replace(' … ', '') and text.count('12.34 … 56.78') == 2 * more
    words = text.split()
    for word in ('accuracy', 'class', 'aeroplane', 'automobile', 'verdict', 'undecided:', 'needs', 'seeds'):
        assert word in words, (word, lines)


@pytest.mark.parametrize('columns', [40, 60, 80, 120])
@pytest.mark.parametrize(
    'command', [['compare'], ['compare', '--against', 'baseline'], ['confusion', 'kd', '--against', 'baseline'], ['ls']]
)
def test_commands_cut_nothing(tmp_path, kdfast, monkeypatch, command, columns):
    for recipe, n in (('baseline', 60), ('kd', 63), ('kd,epochs=16,optimizer=muon', 64)):
        for seed in (0, 1):
            images = dict(right=[1] * n + [0] * (100 - n), confusion=[[n, 100 - n], [1, 99]])
            make(tmp_path, recipe, seed, classes=['aeroplane', 'automobile'], seconds=1000.0, **images)
    make(tmp_path, 'exp2', 0, status='interrupted')
    monkeypatch.setattr(results.out, '_width', columns)
    done = kdfast(*command, '--runs', tmp_path)
    assert done.status == 0, done.err
    words = done.out.split()
    assert not [word for word in words if '…' in word and len(word) > 1], done.out
    expected = dict(compare='kd', confusion='aeroplane', ls='interrupted')[command[0]]
    assert expected in words and ('%' in words or '--against' in command), done.out


@pytest.mark.parametrize('width', WIDTHS[4:])
@pytest.mark.parametrize('boxed', [False, True])
def test_the_summary_of_a_run_cuts_nothing(tmp_path, width, boxed):
    teacher = make(tmp_path, 'teacher', 0, data='photographs', recorded=IMAGES, **TEACHER)
    student = make(tmp_path, 'kd,epochs=16', 0, data='photographs', recorded=IMAGES, **STUDENT)
    text = summary(teach(student, teacher), width, boxed=boxed)
    words = text.replace('│', ' ').split()
    assert '…' not in text and RunDir(student.path).finished
    for word in (
        'photographs,',
        'kd,epochs=16',
        'validation',
        'accuracy',
        'parameters',
        '306',
        '1.33',
        'change',
        '4.3×',
    ):
        assert word in words, (word, text)


def test_every_table_is_such_a_table():
    package = Path(kdfast.__file__).parent
    importing = {file.name for file in package.rglob('*.py') if 'rich.table' in file.read_text()}
    assert importing == {'tables.py', 'format.py'}
    assert 'class Table(rich.table.Table)' in (package / 'core' / 'tables.py').read_text()


@pytest.mark.parametrize('width', [40, 80, 120])
@pytest.mark.parametrize('n', [100, 400])
def test_a_very_long_text_cuts_no_other_word(width, n):
    table = Table.grid(padding=(0, 2))
    table.add_row(Text('most confused'), Text('word ' * n))
    words = ' '.join(shown(table, width)).split()
    assert 'most' in words and 'confused' in words and words.count('word') == n
    assert shown(table, 2 * width) and shown(table, width)[0].startswith('most')  # of any width, one after the other


@pytest.mark.parametrize('width', [20, 40, 80])
def test_a_bar_may_be_shorter_but_a_word_may_not(width):
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow='crop', no_wrap=True)
    for name in ('[dim]airplane[/]', 'ship'):
        table.add_row(name, Text('━' * 60))
    lines = shown(table, width)
    assert [line.split()[0] for line in lines] == ['airplane', 'ship'] and all('━━' in line for line in lines)
