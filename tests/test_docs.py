"Test the guides: their Python runs, their commands are valid, and the output that they show is what is printed."

import contextlib
import html
import io
import json
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import warnings
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from kdfast.runs.recipes import find_recipe, recipe_names

DOCS = Path(__file__).parents[1] / 'docs'
GUIDES = sorted(file.stem for file in DOCS.glob('*.md'))
FENCE = re.compile(r'(?P<before>[^\n]*)\n+```(?P<kind>python|sh|text)\n(?P<body>.*?)^```$', re.M | re.S)
FILE = re.compile(r'`([\w-]+\.py)`:$')  # the line before a block that is the content of a file
RUN = '<!-- run -->'  # the line before commands that are run, not only parsed
UPDATE = os.environ.get('UPDATE_GUIDES')  # write what is printed into the guides, after a change of wording
TRAINING = {'run', 'study', 'matrix', 'lr-find', 'plan', 'worth'}  # of the README, parsed only: they take minutes


def parse(words):
    "Parse a command line as kdfast does, the values of a recipe's options included"
    from kdfast import cli

    command, name, ctx = get_command(cli.app), 'kdfast', None
    while True:
        ctx = command.make_context(name, words, parent=ctx)
        if not isinstance(command, TyperGroup):
            break
        name, command, words = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
    if hasattr(command, 'recipe'):
        command.recipe.resolve({o.name: ctx.params[o.name] for o in command.recipe.options})


def create_runs(words):
    "Create the run directories that a command names, as far as parsing looks at them"
    for folder in (Path(word) for word in words if word.startswith('runs/')):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'run.json').touch()


def commands(body):
    return [words[1:] for line in body.splitlines() if (words := shlex.split(line, comments=True))[:1] == ['kdfast']]


def output_of(source, names):
    "Execute Python and return what it prints, without progress bars that were overwritten"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(source, names)
    return re.sub(r'[^\n]*\r', '', out.getvalue())


@pytest.mark.parametrize('guide', GUIDES)
def test_examples_of_a_guide_run_and_print_what_it_shows(guide, kdfast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '100')
    warnings.simplefilter('ignore')
    file = DOCS / f'{guide}.md'
    names, printed = dict(__name__=guide), None
    for fence in FENCE.finditer(file.read_text()):
        before, body = fence['before'], fence['body']
        if fence['kind'] == 'text' and UPDATE:
            shown = f'```text\n{body}```'
            file.write_text(file.read_text().replace(shown, f'```text\n{printed.strip()}\n```', 1))
        elif fence['kind'] == 'text':
            assert printed.strip() == body.strip()
        elif fence['kind'] == 'python' and (named := FILE.search(before)):
            Path(named[1]).write_text(body)
        elif fence['kind'] == 'python':
            printed = output_of(body, names)
        elif before == RUN:
            done = [kdfast(*words) for words in commands(body)]
            assert all(d.status == 0 for d in done), done
            printed = ''.join(d.out for d in done)
        else:
            for words in commands(body):
                create_runs(words)
                parse(words)


def test_examples_of_the_readme_run(kdfast, study, images, tmp_path, monkeypatch):
    "Commands that train are parsed, all others run on a finished study, in the order of the README"
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter('ignore')
    shutil.copytree(study, Path('runs', 'cifar10-small'))
    shutil.copytree(images, 'photos')
    for name, source in {'cat.jpg': 'train/cat/000.png', 'dog.png': 'train/bee/000.png'}.items():
        shutil.copy(images / source, name)
    seen = set()
    for fence in FENCE.finditer((DOCS.parent / 'README.md').read_text()):
        if fence['kind'] == 'python':
            output_of(fence['body'], dict(__name__='readme'))
        for words in commands(fence['body']) if fence['kind'] == 'sh' else ():
            if words[0] in TRAINING:
                parse(words)
            else:
                done = kdfast(*words)
                assert done.status == 0, (words, done.err)
            seen.add(words[0])
    assert seen >= {'run', 'study', 'matrix', 'ls', 'compare', 'confusion', 'report', 'export', 'predict', 'check'}


def test_the_readme_is_short_and_has_the_two_commands_for_ci():
    text = (DOCS.parent / 'README.md').read_text()
    assert len(text.splitlines()) <= 180
    block = text.partition('<!-- the two commands -->\n```sh\n')[2].partition('```\n<!-- end -->')[0]
    assert len(block.splitlines()) == 2


def test_every_recipe_with_a_teacher_is_in_the_table_of_losses_and_nothing_else_is():
    table = (DOCS / 'losses.md').read_text().partition('| recipe |')[2].partition('\n\n')[0]
    rows = re.findall(r'^\| (`.*?) \|', table, re.M)
    named = {name for row in rows for name in re.findall(r'`(\w+)`', row)}
    assert named == set(recipe_names()) - {'teacher', 'baseline'}


PAGES = [*(DOCS / f'{guide}.md' for guide in GUIDES), *DOCS.parent.glob('*.md')]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_what_a_page_refers_to_exists(page):
    text = page.read_text()
    for link in re.findall(r'\]\(([^):#]+)(?:#[^)]*)?\)', text):
        assert (page.parent / link).exists(), link
    if page.stem != 'CHANGELOG':  # names old import paths
        for name in re.findall(r'`(kdfast(?:\.\w+)+)`', text):
            assert pkgutil.resolve_name(name), name
        for path in re.findall(r'`((?:kdfast|recipes|docs|benchmarks)/[\w/.]*)`', text):
            assert (DOCS.parent / path).exists() or 'mine' in path or path.startswith('docs/site'), path
    for test in re.findall(r'\b(tests/[\w/]+\.py)\b', text):
        assert (DOCS.parent / test).exists() or re.search(r'\b(mine|PACKAGE|test_X)\b', test), test


def test_the_notebook_runs_from_top_to_bottom_in_a_fresh_kernel(tmp_path):
    "With one epoch instead of several, which take minutes"
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / 'notebook.ipynb', as_version=4)
    assert 'site-packages' not in str(notebook)  # warnings that name a machine's paths
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    shorter = [re.sub(r'(EPOCHS = |fit_one_cycle\(|fit_hint\()\d+', r'\g<1>1', cell.source) for cell in code]
    assert sum(cell.source != source for cell, source in zip(code, shorter)) == 3  # teacher, students, stage one
    for cell, source in zip(code, shorter):
        cell.source = source
    NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    shown = [output for cell in code for output in cell.outputs]
    assert sum('image/png' in output.get('data', {}) for output in shown) == 2


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "Build the documentation; the names that docs/build.py defines, its folder, and its pages by path"
    folder = tmp_path_factory.mktemp('site')
    names = runpy.run_path(str(DOCS / 'build.py'))
    names['build'](folder)
    pages = {page.relative_to(folder).as_posix(): page.read_text() for page in folder.rglob('*.html')}
    return names, folder, pages


def test_the_reference_shows_docstrings_and_comments_of_parameters(site):
    names, _, pages = site
    for page, name in {
        'kdfast/distill/distill.html': 'kdfast.distill.distill.Distill.__init__',
        'kdfast/distill/losses/logits.html': 'kdfast.distill.losses.logits.kd_loss',
        'kdfast/distill/hint.html': 'kdfast.distill.hint.fit_hint',
        'kdfast/data/dataset.html': 'kdfast.data.dataset.Data',
    }.items():
        comments = names['comments'](pkgutil.resolve_name(name))
        text = re.sub(r'\s+', ' ', html.unescape(re.sub(r'<[^>]+>', '', pages[page])))
        assert comments and all(' '.join(c.replace('`', '').split()) in text for c in comments.values()), name
    assert 'id="Distill"' in pages['kdfast/distill/distill.html']
    assert 'id="Distill.before_batch"' not in pages['kdfast/distill/distill.html']  # an event, not for users


def test_the_reference_has_every_package(site):
    _, _, pages = site
    packages = {file.parent.name for file in DOCS.parent.glob('kdfast/*/__init__.py')} - {'cli'}
    assert packages == {page.split('/')[1] for page in pages if page.startswith('kdfast/') and page.count('/') > 1}


def test_the_site_has_a_page_for_every_command_with_all_options(site):
    from kdfast import cli

    _, _, pages = site
    root = get_command(cli.app)
    ctx = root.make_context('kdfast', [], resilient_parsing=True)
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        if command.hidden:
            continue
        text = pages[f'commands/{name}.html']
        assert f'href="commands/{name}.html"' in pages['commands.html']
        for parameter in command.get_params(ctx):
            assert parameter.name == 'help' or (parameter.opts or [parameter.name])[0] in text, (name, parameter.name)
    assert 'muon (Muon for convolutions' in pages['commands/run.html'] and 'muon (' in pages['commands/study.html']
    for name in recipe_names():
        assert f'>kdfast run {name}<' in pages['commands/run.html'], name
        for option in find_recipe(name).options:
            assert f'--{option.name.replace("_", "-")}' in pages['commands/run.html'], (name, option.name)


def test_links_between_pages_exist(site):
    _, folder, pages = site
    assert set(pages) >= {'index.html', 'losses.html', 'notebook.html', 'kdfast/distill/match.html'}
    assert 'href="kdfast/distill/losses/logits.html#kd_loss"' in pages['losses.html']
    for page, text in pages.items():
        for link in re.findall(r'href="([^"#:]+\.html)', text):
            assert ((folder / page).parent / link).exists(), (page, link)


def test_search_finds_guides_commands_and_the_reference(site):
    _, folder, _ = site
    script = (folder / 'search.js').read_text()
    index, _ = json.JSONDecoder().raw_decode(script, script.index('docs = {') + len('docs = '))
    texts = index['documentStore']['docs']
    assert '--seeds' in texts['commands.study']['doc']
    for name in ('your-network', 'commands.run', 'kdfast.distill.match.Match', 'kdfast.stats.intervals.over_seeds'):
        assert texts[name]['doc'], name
