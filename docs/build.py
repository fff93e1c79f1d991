"""Build the documentation as HTML: guides, commands, reference and search.

python docs/build.py           writes docs/site; needs kdfast[docs]
python docs/build.py FOLDER    writes another folder
"""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import sys
import tokenize
from dataclasses import is_dataclass
from io import StringIO
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pdoc
from fastai.basics import Callback, Learner

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from command_pages import command_pages  # noqa: E402

GUIDES = [
    'README',
    'your-network',
    'data',
    'photographs',
    'losses',
    'fastai',
    'recipes',
    'worth',
    'verdicts',
    'reliability',
    'results',
    'benchmarks',
    'comparison',
    'questions',
    'notebook',
]  # in the order of reading
PACKAGES = [
    'distill',
    'training',
    'models',
    'data',
    'runs',
    'analysis',
    'stats',
    'study',
    'report',
    'export',
    'core',
]  # in the order of the sidebar
TITLES = {'index': 'Start', 'notebook': 'Notebook'}  # in the sidebar, in place of a guide's own title


# Guides


def guides() -> list[pdoc.doc.Module]:
    "Return each guide as a module that has only a docstring, which pdoc renders, links and searches."
    return [as_module(page(name), for_the_site(text(name))) for name in GUIDES]


def commands() -> list[pdoc.doc.Module]:
    "Return a page per command, made from the Typer app, in the same way."
    from kdfast import cli

    return [as_module(name, text) for name, text in command_pages(cli.app).items()]


def as_module(name, text):
    return pdoc.doc.Module(ModuleType(name, text))


def page(name):
    return 'index' if name == 'README' else name


def text(name):
    "Return a guide as Markdown; of a notebook, its cells and outputs in order"
    if (file := HERE / f'{name}.md').exists():
        return file.read_text()
    cells = json.loads((HERE / f'{name}.ipynb').read_text())['cells']
    return '\n\n'.join(part for cell in cells for part in markdown(cell))


def markdown(cell):
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        return [source]
    return [f'```python\n{source}\n```', *(shown(output) for output in cell['outputs'])]


def shown(output):
    "Return an output of a cell as Markdown: its picture, else its table, else its text"
    data = output.get('data', {'text/plain': output.get('text', '')})
    if 'image/png' in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}"/>'
    if 'text/html' in data:
        return re.sub(r'<style>.*?</style>|\n', '', ''.join(data['text/html']), flags=re.S)
    return f'```text\n{"".join(data["text/plain"]).rstrip()}\n```'


def for_the_site(text):
    "Turn links to other guides into links to their pages"
    return re.sub(r'\]\(([\w-]+)\.(?:md|ipynb)(#[\w-]*)?\)', lambda m: f']({page(m[1])}.html{m[2] or ""})', text)


def title(guide):
    return TITLES.get(guide.name) or re.match(r'# (.*)', guide.docstring)[1]


# Reference


def comments(obj) -> dict[str, str]:
    "Return the comment beside each parameter of a function or field of a dataclass, 'return' for the result."
    source = dedent(inspect.getsource(obj))
    beside = {
        token.start[0]: token.string.lstrip('# ')
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    node = ast.parse(source).body[0]
    if isinstance(node, ast.ClassDef):
        lines = {field.target.id: field.lineno for field in node.body if isinstance(field, ast.AnnAssign)}
    else:
        of = node.args
        lines = {arg.arg: arg.lineno for arg in (*of.args, of.vararg, *of.kwonlyargs, of.kwarg) if arg}
        if node.returns:
            lines['return'] = node.returns.lineno
    return {name: beside[line] for name, line in lines.items() if line in beside}


def documented(doc) -> dict[str, str]:
    "Return the comments of a function or dataclass; those of another class are beside the parameters of its __init__"
    has_some = is_dataclass(doc.obj) if doc.kind == 'class' else doc.kind == 'function' and doc.source
    return comments(doc.obj) if has_some else {}


def is_public(doc) -> bool:
    "Whether something has a docstring and, if it has parameters, comments on them; events of callbacks do not."
    if doc.kind == 'module':
        return True
    if doc.name.startswith('_') and doc.name != '__init__':
        return False
    if doc.kind == 'function':
        return bool(documented(doc)) and (bool(doc.docstring) or doc.name in ('__init__', 'forward'))
    if doc.kind == 'variable':
        return bool(doc.docstring) and not issubclass(owner(doc), Callback)
    needs_comments = '__init__' in vars(doc.obj) and not is_dataclass(doc.obj)
    return bool(doc.docstring) and (not needs_comments or bool(comments(doc.obj.__init__)))


def owner(doc):
    "Return the class that an attribute belongs to"
    found = pkgutil.resolve_name(f'{doc.modulename}:{doc.qualname.rpartition(".")[0]}')
    return found if inspect.isclass(found) else object


def format_signature(*args, **kwargs):
    "Format a signature without the modules of other libraries: Module for torch.nn.modules.module.Module"
    signature = pdoc.render.format_signature(*args, **kwargs)
    prefix = r'(<span class="n">\w+</span><span class="o">\.</span>)+'
    return type(signature)(re.sub(prefix, lambda m: m[0] if '>kdfast<' in m[0] else '', signature))


def reference() -> dict[str, dict[str, pdoc.doc.Module]]:
    "Return the modules that have something for users, by package. Modules that need a missing extra are left out."
    hint = importlib.import_module('kdfast.distill.hint')
    hint.fit_hint = Learner.fit_hint  # a method that this module adds to Learner; the module itself has no such name
    packages = {f'kdfast.{name}': modules_of(f'kdfast.{name}') for name in PACKAGES}
    return {name: modules for name, modules in packages.items() if modules}


def modules_of(package):
    "Return the documented modules of a package and its subpackages, by name"
    found = {}
    for name in (package, *submodule_names(importlib.import_module(package))):
        try:
            module = pdoc.doc.Module(importlib.import_module(name))
        except ImportError as e:
            print(f'left out {name}: {e}', file=sys.stderr)
            continue
        if any(is_public(member) for member in module.members.values() if member.kind != 'module'):
            found[name] = module
    return found


def submodule_names(package):
    return [info.name for info in pkgutil.walk_packages(package.__path__, f'{package.__name__}.')]


def build(
    folder: Path,  # Created if missing
):
    "Write every page, and the index of the search box."
    guide_pages, command_texts, packages = guides(), commands(), reference()
    modules = {name: module for members in packages.values() for name, module in members.items()}
    pdoc.render.configure(docformat='markdown', template_directory=HERE / 'template')
    pdoc.render.env.globals.update(
        guides=[(guide.name, title(guide)) for guide in guide_pages],
        commands=[(command.fullname, title(command)) for command in command_texts],
        reference={package: list(members) for package, members in packages.items()},
        documented=documented,
        is_for_users=is_public,
    )
    pdoc.render.env.filters['format_signature'] = format_signature
    for module in (*guide_pages, *command_texts, *modules.values()):
        file = folder / f'{module.fullname.replace(".", "/")}.html'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pdoc.render.html_module(module, modules))
    texts = {page.fullname: page for page in (*guide_pages, *command_texts)}
    (folder / 'search.js').write_text(pdoc.render.search_index(texts | modules))
    print(f'wrote {folder / "index.html"}')


if __name__ == '__main__':
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / 'site')
