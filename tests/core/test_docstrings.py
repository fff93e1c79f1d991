"""Everything with a public name has a docstring, and every parameter a comment beside it: the reference and --help.

Exempt are functions inside of functions, parameters of commands, whose help is in their annotation, `main` of a
recipe, whose docstring is the file's, and methods that override those of fastai, PyTorch, Typer or Python.
"""

import ast
import importlib
import io
import re
import tokenize
from pathlib import Path

import pytest
from fastai.callback.core import event

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / 'kdfast').rglob('*.py'), *(ROOT / 'recipes').glob('*.py')])
MAX_LENGTH = 100  # characters of the first line of a docstring
NO_VERB = re.compile(
    r'(An?|The|An|Where|What|How|Who|Whether|Why|If|Of|In|By|For|It|Its|All|As|Without|With|Both|One)\b'
)
OF_COMMAND = re.compile(r'\w*(Option|Argument|Options)|typer\.Context|Annotated\[.*', re.S)  # annotations


def comment_lines(source):
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def definitions(body, owner=''):
    "Yield qualified name and node of every class, function and method with a public name, and of __init__"
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from definitions(node.body, owner)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and (node.name[0] != '_' or node.name == '__init__'):
            yield f'{owner}{node.name}', node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f'{node.name}.')


def parameters(node):
    of = node.args
    found = [*of.posonlyargs, *of.args, of.vararg, *of.kwonlyargs, of.kwarg]
    return [p for p in found if p and p.arg not in ('self', 'cls')]


def without_comment(node, commented):
    for p in parameters(node):
        if p.end_lineno not in commented and not (p.annotation and OF_COMMAND.fullmatch(ast.unparse(p.annotation))):
            yield p.arg


def overrides(file, name):
    "Whether a method overrides one of a library, or is an event of fastai, which calls events by name"
    owner, _, method = name.partition('.')
    if not method or method == '__init__':
        return False
    module = importlib.import_module('.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'))
    bases = [base for base in getattr(module, owner).__mro__ if not base.__module__.startswith('kdfast')]
    return hasattr(event, method) or any(method in vars(base) for base in bases)


def docstring_problem(node):
    text = ast.get_docstring(node)
    if not text:
        return '' if node.name == '__init__' else 'has no docstring'
    first = text.partition('\n')[0]
    if len(first) > MAX_LENGTH:
        return f'has a docstring whose first line has {len(first)} characters'
    is_verb = isinstance(node, ast.ClassDef) or node.decorator_list or not NO_VERB.match(first)
    return '' if is_verb else f'has a docstring that does not begin with a verb: {first}'


def problems(file):
    source = file.read_text()
    commented = comment_lines(source)
    is_recipe = file.parent.name == 'recipes'
    for name, node in definitions(ast.parse(source).body):
        missing = list(without_comment(node, commented)) if isinstance(node, ast.FunctionDef) else []
        problem = '' if is_recipe and name == 'main' else docstring_problem(node)
        if (missing or problem) and not overrides(file, name):
            yield ', '.join(
                filter(None, [f'{name}: no comment beside {" ".join(missing)}' if missing else name, problem])
            )


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_public_names_have_docstrings_and_their_parameters_comments(file):
    assert not list(problems(file))


def test_a_missing_comment_and_a_missing_docstring_are_found():
    source = 'def f(\n    a,  # Known\n    b,\n    *c,\n): pass\nclass K:\n    def g(self): "The value."\n'
    (_, f), _, (_, g) = definitions(ast.parse(source).body)
    assert list(without_comment(f, comment_lines(source))) == ['b', 'c']
    assert docstring_problem(f) == 'has no docstring'
    assert docstring_problem(g) == 'has a docstring that does not begin with a verb: The value.'
