"""Options of recipes: their types, ranges and command line flags. Imports no torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules

from kdfast.core.errors import KdfastError
from kdfast.core.names import ANY_NETWORK, is_run, names_network

OPTIMIZERS = sorted(  # file names, so that no torch is imported; the default comes first
    (module.name for module in iter_modules([str(Path(__file__).parents[1] / 'training' / 'optimizers')])),
    key=lambda name: (name != 'sgd', name),
)
NETWORK_OPTIONS = ('network', 'teacher', 'student')  # that every recipe calls so
TYPES = dict(int=int, float=float, str=str, bool=bool)


RANGES = {
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
    "A parameter of a recipe's `main`, documented beside itself."

    name: str
    type: type
    default: object
    help: str


def option_flag(name):
    "The option of the command line for a parameter of `main`"
    return f'--{name.replace("_", "-")}'


def option_flags(
    arguments: dict,  # By name
) -> list[str]:
    "The words of a command line that give them."

    def words(name, value):
        return (
            [option_flag(name), str(value)]
            if not isinstance(value, bool)
            else [option_flag(name) if value else option_flag(f'no_{name}')]
        )

    return [word for name, value in arguments.items() for word in words(name, value)]


def layer_pairs(
    layers: str,  # TEACHER_LAYER:STUDENT_LAYER,…
) -> list:  # (teacher's, student's) of each; none where it is not of this form
    "Pairs of layers, taken apart."
    found = [tuple(pair.split(':')) for pair in layers.split(',')]
    return found if all(len(pair) == 2 and all(pair) for pair in found) else []


def check_value(recipe, name, value):
    "Raise KdfastError for a value outside its range; a name means the same in every recipe"
    allowed, said = RANGES.get(name, (lambda v: True, ''))
    if isinstance(value, float) and not math.isfinite(value):
        allowed, said = (lambda v: False), 'a finite number'
    if not allowed(value):
        raise KdfastError(f'--{name} {value} of {recipe} is out of range: expected {said}')
