"What the guides show works: their Python runs from top to bottom, their commands are commands, and what they print is what stands there."

import contextlib
import io
import pkgutil
import re
import runpy
import shlex
import warnings
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from kdfast.runs.recipes import recipe_names

DOCS = Path(__file__).parents[1] / 'docs'
GUIDES = sorted(file.stem for file in DOCS.glob('*.md'))
FENCE = re.compile(r'(?P<before>[^\n]*)\n+```(?P<kind>python|sh|text)\n(?P<body>.*?)^```$', re.M | re.S)
FILE = re.compile(r'`([\w-]+\.py)`:$')  # what stands before the content of a file
RUN = '<!-- run -->'  # before commands that are run, not only read


def parse(words):
    "Read a command line as kdfast does, to its last option; the values of a recipe's options, too"
    from kdfast import cli

    command, name, ctx = get_command(cli.app), 'kdfast', None
    while True:
        ctx = command.make_context(name, words, parent=ctx)
        if not isinstance(command, TyperGroup):
            break
        name, command, words = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
    if hasattr(command, 'recipe'):
        command.recipe.resolve({o.name: ctx.params[o.name] for o in command.recipe.options})


def exists(words):
    "The runs that a command speaks of, as far as a look at the command line goes"
    for folder in (Path(word) for word in words if word.startswith('runs/')):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'run.json').touch()


def commands(body):
    return [words[1:] for line in body.splitlines() if (words := shlex.split(line, comments=True))[:1] == ['kdfast']]


def printed(source, names):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(source, names)
    return re.sub(r'[^\n]*\r', '', out.getvalue())  # a bar that was drawn over


@pytest.mark.parametrize('guide', GUIDES)
def test_a_guide_is_true(guide, kdfast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '100')
    warnings.simplefilter('ignore')
    names, said = dict(__name__=guide), None
    for fence in FENCE.finditer((DOCS / f'{guide}.md').read_text()):
        before, body = fence['before'], fence['body']
        if fence['kind'] == 'text':
            assert said.strip() == body.strip()
        elif fence['kind'] == 'python' and (file := FILE.search(before)):
            Path(file[1]).write_text(body)
        elif fence['kind'] == 'python':
            said = printed(body, names)
        elif before == RUN:
            done = [kdfast(*words) for words in commands(body)]
            assert all(d.status == 0 for d in done), done
            said = ''.join(d.out for d in done)
        else:
            for words in commands(body):
                exists(words), parse(words)


def test_the_readmes_commands_are_commands(tmp_path, monkeypatch):
    text = (DOCS.parent / 'README.md').read_text()
    monkeypatch.chdir(tmp_path)
    for fence in FENCE.finditer(text):
        if fence['kind'] == 'sh':
            for words in commands(fence['body']):
                exists(words), parse(words)
    assert (DOCS.parent / 'recipes' / 'exp1.py').read_text() in text


def test_every_recipe_with_a_teacher_is_in_the_table_of_losses_and_nothing_else_is():
    table = (DOCS / 'losses.md').read_text().partition('| recipe |')[2].partition('\n\n')[0]
    rows = re.findall(r'^\| (`.*?) \|', table, re.M)
    named = {name for row in rows for name in re.findall(r'`(\w+)`', row)}
    assert named == set(recipe_names()) - {'teacher', 'baseline'}


@pytest.mark.parametrize('guide', GUIDES)
def test_what_a_guide_refers_to_is_there(guide):
    text = (DOCS / f'{guide}.md').read_text()
    for page in re.findall(r'\]\(([^):#]+)\)', text):
        assert (DOCS / page).exists(), page
    for name in re.findall(r'`(kdfast(?:\.\w+)+)`', text):
        assert pkgutil.resolve_name(name), name
    for test in re.findall(r'`(tests/[\w/]+\.py)`', text):
        assert (DOCS.parent / test).exists(), test


def test_the_notebook_runs_from_top_to_bottom_in_a_fresh_kernel(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / 'digits.ipynb', as_version=4)
    assert 'site-packages' not in str(notebook)  # warnings of somebody's machine
    NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
    assert sum('image/png' in output.get('data', {}) for output in shown) == 2


def test_the_pages_show_what_stands_beside_the_arguments(tmp_path):
    build = runpy.run_path(str(DOCS / 'build.py'))
    build['build'](tmp_path)
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob('*.html')}
    assert set(pages) >= {'index.html', 'losses.html', 'digits.html', 'kdfast/distill/match.html'}
    for page, comment in {
        'kdfast/distill/distill.html': 'Weight of the soft loss, 0 to 1',
        'kdfast/distill/losses/logits.html': 'Logits of the student, (batch, classes)',
        'kdfast/distill/hint.html': 'Passed to fit_one_cycle: wd, cbs …',
        'kdfast/data/dataset.html': 'SHA-256 of classes, labels and pixels',
        'kdfast/training/run.html': 'Some images, to see what networks make of them',
    }.items():
        assert comment in pages[page], page
    assert (
        'href="../data/dataset.html#Data"' in pages['kdfast/training/run.html']
        and 'href="kdfast/distill/losses/logits.html#kd_loss"' in pages['losses.html']
        and 'id="pool_to_smaller"' not in pages['kdfast/distill/losses/features.html']
    )
    for page, text in pages.items():
        for link in re.findall(r'href="([^"#:]+\.html)', text):
            assert ((tmp_path / page).parent / link).exists(), (page, link)
