"No word and no number of a table is cut, however narrow the terminal is."

import io
from pathlib import Path

import pytest
from conftest import make
from rich.console import Console
from rich.text import Text
from test_summary import IMAGES, STUDENT, TEACHER, summary, teach

import kdfast
from kdfast.core.tables import Table
from kdfast.runs.run_dir import RunDir

WIDTHS = range(20, 130, 5)


def shown(renderable, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


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
    from kdfast.cli import results

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
