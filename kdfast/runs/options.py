"Options of recipes: types, ranges, command-line flags. Imports no torch."

import ast
import math
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules

from kdfast.core.errors import KdfastError
from kdfast.core.names import ANY_NETWORK, is_run, names_network

OPTIMIZER_FILES = Path(__file__).parents[1] / 'training' / 'optimizers'  # read as text, so that no torch is imported
OPTIMIZERS = sorted(  # the default comes first
    (module.name for module in iter_modules([str(OPTIMIZER_FILES)])), key=lambda name: (name != 'sgd', name)
)
NETWORK_OPTIONS = ('network', 'teacher', 'student')  # options of any recipe whose values are networks
TYPES = dict(int=int, float=float, str=str, bool=bool)
RANGES = {  # of an option, in any recipe: a test, and the allowed values
    'epochs': (lambda v: v >= 1, 'at least 1'),
    'lr': (lambda v: v > 0, 'above 0'),
    'wd': (lambda v: v >= 0, '0 or more'),
    'optimizer': (lambda v: v in OPTIMIZERS, ' or '.join(OPTIMIZERS)),
    'T': (lambda v: v > 0, 'above 0'),
    'alpha': (lambda v: 0 <= v <= 1, 'from 0 to 1'),
    'student': (lambda v: names_network(v), ANY_NETWORK),
    'network': (lambda v: names_network(v), ANY_NETWORK),
    'teacher': (lambda v: is_run(v) or names_network(v), f'{ANY_NETWORK}; or the folder of a run'),
    'hint': (lambda v: len(layer_pairs(v)) == 1, 'TEACHER_LAYER:STUDENT_LAYER'),
    'layers': (lambda v: len(layer_pairs(v)) >= 1, 'TEACHER_LAYER:STUDENT_LAYER,…'),
    'weight': (lambda v: v >= 0, '0 or more'),
    'negatives': (lambda v: v >= 1, 'at least 1'),
}


@dataclass(frozen=True)
class Option:
    "A parameter of a recipe's `main`."

    name: str
    type: type
    default: object
    help: str  # The comment behind the parameter

    def described(self) -> str:
        "Return the help; that of `optimizer` also lists the optimizers, unless the comment names them all."
        if self.name != 'optimizer' or all(name in self.help for name in OPTIMIZERS):
            return self.help
        return f'{self.help}: {optimizer_list()}'


def optimizer_list() -> str:
    "Return the names of the optimizers, each with the first line of its module's docstring."
    docstrings = {
        name: ast.get_docstring(ast.parse((OPTIMIZER_FILES / f'{name}.py').read_text())) for name in OPTIMIZERS
    }
    return ', '.join(f'{name} ({docstring.splitlines()[0].rstrip(".")})' for name, docstring in docstrings.items())


def option_flag(
    name: str,  # Of a parameter of `main`
) -> str:
    "Return the command-line option of a parameter."
    return f'--{name.replace("_", "-")}'


def option_flags(
    arguments: dict,  # By name
) -> list[str]:
    "Return the command-line words that set these arguments."
    words = []
    for name, value in arguments.items():
        if isinstance(value, bool):
            words.append(option_flag(name if value else f'no_{name}'))
        else:
            words += [option_flag(name), str(value)]
    return words


def layer_pairs(
    layers: str,  # TEACHER_LAYER:STUDENT_LAYER,…
) -> list:  # (teacher's, student's) of each; empty if malformed
    "Parse pairs of layers."
    pairs = [tuple(pair.split(':')) for pair in layers.split(',')]
    return pairs if all(len(pair) == 2 and all(pair) for pair in pairs) else []


def check_value(
    recipe: str,  # Name of the recipe, for the error
    name: str,  # Of the option
    value: object,  # To check
):
    "Raise KdfastError for a value outside the range of its option."
    in_range, expected = RANGES.get(name, (lambda v: True, ''))
    if isinstance(value, float) and not math.isfinite(value):
        in_range, expected = (lambda v: False), 'a finite number'
    if not in_range(value):
        raise KdfastError(f'--{name} {value} of {recipe} is out of range: expected {expected}')
