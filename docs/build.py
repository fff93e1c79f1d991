"Builds the documentation, guides and reference, as a folder of HTML: python docs/build.py [FOLDER], docs/site unless given. Needs kdfast[docs]."

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
GUIDES = [
    'README',
    'your-network',
    'data',
    'photographs',
    'losses',
    'fastai',
    'recipes',
    'verdicts',
    'reliability',
    'results',
    'benchmarks',
    'comparison',
    'questions',
    'digits',
]  # in the order of reading
REFERENCE = [
    'distill.distill',
    'distill.hint',
    'distill.match',
    'distill.regressor',
    'distill.losses.logits',
    'distill.losses.features',
    'distill.losses.crd',
    'distill.losses.regressed',
    'distill.losses.review',
    'distill.losses.vid',
    'training.muon',
    'models.study_networks',
    'models.build',
    'models.saved',
    'models.front',
    'models.layers',
    'data.sources',
    'data.dataset',
    'data.from_python',
    'data.dataloaders',
    'training.run',
    'training.execute',
    'runs.recipes',
    'runs.run_dir',
    'core.errors',
]
TITLES = {'index': 'Start', 'digits': 'A notebook'}  # titles that the sidebar has in place of a guide's own


# Guides


def guides() -> list[pdoc.doc.Module]:
    "Each guide as a module that is nothing but its docstring: pdoc then renders it, links the names in it and searches it."
    return [pdoc.doc.Module(ModuleType(page(name), for_the_site(text(name)))) for name in GUIDES]


def page(name):
    return 'index' if name == 'README' else name


def text(name):
    "A guide as Markdown; a notebook's cells and outputs one behind the other"
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
    "An output of a cell: its picture, its table, or else its text"
    data = output.get('data', {'text/plain': output.get('text', '')})
    if 'image/png' in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}"/>'
    if 'text/html' in data:
        return re.sub(r'<style>.*?</style>|\n', '', ''.join(data['text/html']), flags=re.S)
    return f'```text\n{"".join(data["text/plain"]).rstrip()}\n```'


def for_the_site(text):
    "Links to other guides become links to their pages"
    return re.sub(r'\]\(([\w-]+)\.(?:md|ipynb)(#[\w-]*)?\)', lambda m: f']({page(m[1])}.html{m[2] or ""})', text)


def title(guide):
    return TITLES.get(guide.name) or re.match(r'# (.*)', guide.docstring)[1]


# Reference


def comments(obj) -> dict[str, str]:
    "What stands beside each parameter of a function, or each field of a dataclass; 'return' for what it gives."
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
    "Its comments, where it has some: a dataclass's are those of its fields, any other class's stand at its __init__"
    has_some = is_dataclass(doc.obj) if doc.kind == 'class' else doc.kind == 'function' and doc.source
    return comments(doc.obj) if has_some else {}


def is_public(doc) -> bool:
    "Meant for users: what says what it is, and explains each of its arguments. A module's helpers and a callback's inner life are not."
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
    "The class that an attribute belongs to"
    found = pkgutil.resolve_name(f'{doc.modulename}:{doc.qualname.rpartition(".")[0]}')
    return found if inspect.isclass(found) else object


def short(signature):
    "Without the modules in which other libraries keep their classes: Module for torch.nn.modules.module.Module"
    return type(signature)(
        re.sub(
            r'(<span class="n">\w+</span><span class="o">\.</span>)+',
            lambda m: m[0] if '>kdfast<' in m[0] else '',
            signature,
        )
    )


def reference() -> dict[str, pdoc.doc.Module]:
    import kdfast.distill.hint

    kdfast.distill.hint.fit_hint = (
        Learner.fit_hint
    )  # a method that kdfast gives to Learners: documented where it is written
    return {
        name: pdoc.doc.Module(importlib.import_module(name)) for name in (f'kdfast.{module}' for module in REFERENCE)
    }


def build(
    folder: Path,  # Made where it is missing
):
    "Write every page, and the index that the search box looks into."
    pages, modules = guides(), reference()
    pdoc.render.configure(docformat='markdown', template_directory=HERE / 'template')
    pdoc.render.env.globals.update(
        guides=[(guide.name, title(guide)) for guide in pages],
        reference=list(modules),
        documented=documented,
        is_for_users=is_public,
    )
    pdoc.render.env.filters['format_signature'] = lambda *args, **kwargs: short(
        pdoc.render.format_signature(*args, **kwargs)
    )
    for module in (*pages, *modules.values()):
        file = folder / f'{module.fullname.replace(".", "/")}.html'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pdoc.render.html_module(module, modules))
    (folder / 'search.js').write_text(pdoc.render.search_index({page.name: page for page in pages} | modules))
    print(f'wrote {folder / "index.html"}')


if __name__ == '__main__':
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / 'site')
