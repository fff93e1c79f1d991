"Read the function `main` of a recipe, and its options, from the source without executing it."

import ast
import inspect
import os
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.runs.options import KNOWN_TYPES, TYPES, Option, fits

OWN_SCOPE = ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
OPTION_TYPES = f'{", ".join(TYPES)}, one of them or None, or a Literal of them'


@dataclass(frozen=True)
class Declared:
    "The type that a parameter declares."

    type: type
    optional: bool = False  # Whether it may be None
    choices: tuple = ()  # The values of a Literal


def find_main(
    file: Path,  # Of the recipe, for the error
    tree: ast.Module,  # Its content
) -> ast.FunctionDef:
    "Return the definition that Python would call. Raises KdfastError if only execution tells."
    statements = [node for node in tree.body if 'main' in bound_names(node)]
    if not statements:
        raise KdfastError(f'{file} has no function main: a recipe is a file with `def main(run, …)`')
    main = statements[-1]
    if not isinstance(main, ast.FunctionDef):
        raise KdfastError(
            f'{file}, line {main.lineno}: main is not defined by a plain `def main(run, …)`, but conditionally, by an '
            'assignment or an import, or as something else: its options are read without executing the file'
        )
    return main


def bound_names(
    node: ast.AST,  # A statement, or a part of one
) -> Iterator[str]:
    "Yield the names that a statement may bind or delete in its own scope."
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, OWN_SCOPE) or isinstance(node, ast.AnnAssign) and node.value is None:
        return
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.alias):
        yield node.asname or node.name.partition('.')[0]
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        yield node.name
    elif isinstance(node, ast.MatchMapping):
        yield node.rest
    for child in ast.iter_child_nodes(node):
        yield from bound_names(child)


def first_line(
    main: ast.FunctionDef,  # Function of a recipe
) -> int:
    "Return the line on which a function begins for Python: that of its first decorator, if it has one."
    return min([main.lineno, *(decorator.lineno for decorator in main.decorator_list)])


def check_is_read(
    function: Callable,  # What Python calls, after executing the file
    file: Path,  # Of the recipe
    line: int,  # On which the definition begins whose options were read
    options: list[Option],  # That were read
):
    "Raise KdfastError if the function is another one than that whose options were read."
    code = getattr(inspect.unwrap(function), '__code__', None)
    here = code and (os.path.abspath(code.co_filename), code.co_firstlineno) == (os.path.abspath(file), line)
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()} if here else {}
    if not all(option.name in defaults and defaults[option.name] == option.default for option in options):
        here = False
    if not here:
        raise KdfastError(
            f'{file}, line {line}: executing the file makes main something else than what is defined here, so that its '
            'options may differ: define it last, without changing it; decorators need functools.wraps'
        )


def read_options(
    file: Path,  # Of the recipe, for the error
    source: str,  # Its content
    main: ast.FunctionDef,  # Its function
) -> list[Option]:
    "Read the options of a recipe: the parameters of its main after the first, which is the run."
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip('# ') for token in tokens if token.type == tokenize.COMMENT}
    found, where = main.args, f'{file}, line {main.lineno}'
    positional = [*found.posonlyargs, *found.args]
    if not positional:
        raise KdfastError(f'{where}: main has no parameter for the run: expected `def main(run, …)`')
    if found.posonlyargs[1:]:
        name = found.posonlyargs[1].arg
        raise KdfastError(f'{where}: {name} is positional only, and options are passed by name: move the / before it')
    defaults = [None] * (len(positional) - len(found.defaults)) + found.defaults
    parameters = [*zip(positional[1:], defaults[1:]), *zip(found.kwonlyargs, found.kw_defaults)]
    if any(default is None for _, default in parameters):
        raise KdfastError(f'{where}: every parameter of main but the first needs a default')
    return [read_option(file, p, default, comments.get(p.lineno, '')) for p, default in parameters]


def read_option(
    file: Path,  # Of the recipe, for the error
    parameter: ast.arg,  # Of its main
    default: ast.expr,  # Of the parameter
    help: str,  # The comment behind it
) -> Option:
    "Read one option. Raises KdfastError for a type or a default that options cannot have."
    name, annotation, where = parameter.arg, parameter.annotation, f'{file}, line {parameter.lineno}'
    kind = declared(annotation) if annotation else None
    if annotation and kind is None:
        raise KdfastError(f'{where}: the type of {name} is {ast.unparse(annotation)}: expected {OPTION_TYPES}')
    try:
        value = ast.literal_eval(default)
    except (ValueError, TypeError):
        value = default
    if type(value) not in TYPES.values() and not (kind and value is None):
        raise KdfastError(f'{where}: the default of {name} must be a plain number or text, True or False')
    kind = kind or Declared(KNOWN_TYPES.get(name, type(value)))
    if kind.type is not KNOWN_TYPES.get(name, kind.type):
        raise KdfastError(
            f'{where}: the type of {name} is {kind.type.__name__}: '
            f'expected {KNOWN_TYPES[name].__name__}, as in every recipe'
        )
    if not (kind.optional and value is None or fits(value, kind.type, kind.choices)):
        expected = ' or '.join(map(repr, kind.choices)) or kind.type.__name__
        raise KdfastError(f'{where}: the default of {name} is {value!r}: expected {expected}')
    return Option(name, kind.type, value if value is None else kind.type(value), help, kind.choices)


def declared(
    annotation: ast.expr,  # Of a parameter
) -> Declared | None:  # None if options cannot have the type
    "Read an annotation."
    match annotation:
        case ast.Constant(value=str() as text):  # "int"
            try:
                return declared(ast.parse(text, mode='eval').body)
            except (SyntaxError, ValueError):
                return None
        case ast.Name(id=name) if name in TYPES:
            return Declared(TYPES[name])
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return union([left, right])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside):
            parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            if name in ('Optional', 'Union'):
                return union(parts + [ast.Constant(None)] * (name == 'Optional'))
            if name in ('Annotated', 'Literal'):
                return literal(parts) if name == 'Literal' else declared(parts[0])
    return None


def union(
    parts: list[ast.expr],  # Its types
) -> Declared | None:  # None if it is not that of one type and None
    "Read a union."
    kinds = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is None)]
    kind = declared(kinds[0]) if len(kinds) == 1 else None
    return kind and replace(kind, optional=kind.optional or len(kinds) < len(parts))


def literal(
    parts: list[ast.expr],  # Its values
) -> Declared | None:  # None if the values are not of one type
    "Read a Literal."
    try:
        values = [ast.literal_eval(part) for part in parts]
    except (ValueError, TypeError):
        return None
    choices = tuple(value for value in values if value is not None)
    kinds = {type(value) for value in choices}
    if len(kinds) != 1 or not kinds <= {*TYPES.values()}:
        return None
    return Declared(kinds.pop(), len(choices) < len(values), choices)
