"Options of recipes: types, ranges, command-line flags. Imports no torch."

import ast
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules

from kdfast.core.errors import KdfastError
from kdfast.core.names import ANY_NETWORK, is_run, names_network
from kdfast.core.ranges import LARGEST_T, LARGEST_WEIGHT, SMALLEST_T

OPTIMIZER_FILES = Path(__file__).parents[1] / 'training' / 'optimizers'  # read as text, so that no torch is imported
OPTIMIZERS = sorted(  # the default comes first
    (module.name for module in iter_modules([str(OPTIMIZER_FILES)])), key=lambda name: (name != 'sgd', name)
)
PRECISIONS = 'auto', 'float32', 'bfloat16'
CLASS_WEIGHTS = 'none', 'auto'  # besides files
NETWORK_OPTIONS = ('network', 'teacher', 'student')  # options of any recipe whose values are networks
TYPES = dict(int=int, float=float, str=str, bool=bool)
KNOWN_TYPES = (  # of an option, in any recipe
    dict.fromkeys(('epochs', 'teacher_epochs', 'negatives'), int)
    | dict.fromkeys(('lr', 'wd', 'T', 'alpha', 'weight'), float)
    | dict.fromkeys(('precision', 'class_weights', 'optimizer', *NETWORK_OPTIONS, 'hint', 'layers'), str)
)
WEIGHT_SUFFIXES = '.pth', '.pt', '.ckpt', '.bin', '.safetensors', '.pkl'
RANGES = {  # of an option, in any recipe: a test, and the allowed values
    'epochs': (lambda v: v >= 1, 'at least 1'),
    'teacher_epochs': (lambda v: v >= 0, '0 or more'),
    'lr': (lambda v: v > 0, 'above 0'),
    'wd': (lambda v: v >= 0, '0 or more'),
    'precision': (lambda v: v in PRECISIONS, ' or '.join(PRECISIONS)),
    'class_weights': (
        lambda v: v in CLASS_WEIGHTS or Path(v).is_file(),
        f'{", ".join(CLASS_WEIGHTS)}, or a table with the columns class and weight',
    ),
    'optimizer': (lambda v: v in OPTIMIZERS, ' or '.join(OPTIMIZERS)),
    'T': (lambda v: SMALLEST_T <= v <= LARGEST_T, f'above 0, from {SMALLEST_T:g} to {LARGEST_T:g}'),
    'alpha': (lambda v: 0 <= v <= 1, 'from 0 to 1'),
    'student': (lambda v: names_network(v), ANY_NETWORK),
    'network': (lambda v: names_network(v), ANY_NETWORK),
    'teacher': (lambda v: is_run(v) or names_network(v), f'{ANY_NETWORK}; or the folder of a run'),
    'hint': (lambda v: len(layer_pairs(v)) == 1, 'TEACHER_LAYER:STUDENT_LAYER'),
    'layers': (lambda v: len(layer_pairs(v)) >= 1, 'TEACHER_LAYER:STUDENT_LAYER,…'),
    'weight': (lambda v: 0 <= v <= LARGEST_WEIGHT, f'0 or more, at most {LARGEST_WEIGHT:g}'),
    'negatives': (lambda v: v >= 1, 'at least 1'),
}


@dataclass(frozen=True)
class Option:
    "A parameter of a recipe's `main`, or a setting of every training."

    name: str
    type: type
    default: object
    help: str  # The comment behind the parameter
    choices: tuple = ()  # The values of a Literal

    @property
    def full_help(self) -> str:
        "The help; that of `optimizer` also lists the optimizers, unless the comment names them all."
        if self.name != 'optimizer' or all(name in self.help for name in OPTIMIZERS):
            return self.help
        return f'{self.help}: {optimizer_list()}'

    def described(self) -> dict:
        "Return the option for `kdfast ls --json`."
        allowed = ' or '.join(map(str, self.choices)) or RANGES.get(self.name, (None, None))[1]
        return dict(name=self.name, type=self.type.__name__, default=self.default, help=self.full_help, range=allowed)

    def check_type(
        self,
        recipe: str,  # Name of the recipe, for the error
        value: object,  # To check
    ):
        "Raise KdfastError for a value of another type, or that is none of the choices."
        if not (value is None and self.default is None or fits(value, self.type, self.choices)):
            expected = ' or '.join(map(str, self.choices)) or self.type.__name__
            raise KdfastError(f'{option_flag(self.name)} of {recipe} is {value!r}: expected {expected}')


def fits(
    value: object,  # To check
    kind: type,  # Of an option
    choices: tuple = (),  # The values of a Literal
) -> bool:
    "Return whether a value has the type of an option, and is one of the choices if there are some."
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) != (kind is bool) or choices and value not in choices:
        return False
    return not (kind is float and isinstance(value, int) and abs(value) > sys.float_info.max)


def optimizer_list() -> str:
    "Return the names of the optimizers, each with the first line of its module's docstring."
    docstrings = {
        name: ast.get_docstring(ast.parse((OPTIMIZER_FILES / f'{name}.py').read_text('utf-8'))) for name in OPTIMIZERS
    }
    return ', '.join(f'{name} ({docstring.splitlines()[0].rstrip(".")})' for name, docstring in docstrings.items())


# Options of every recipe whose `main` has no parameter of that name
SETTINGS = (
    Option(
        'optimizer',
        str,
        None,
        f'Optimizer: {optimizer_list()} (default: the recipe\'s, else sgd).',
    ),
    Option(
        'lr',
        float,
        None,
        'Peak learning rate (default: the recipe\'s), for sgd. muon uses a tenth of it for convolutions, adamw a '
        'hundredth.',
    ),
    Option(
        'wd',
        float,
        None,
        'Weight decay: each step multiplies weights by 1 - lr * wd, whatever the optimizer; norm layers and biases do '
        'not decay (default: 0.005).',
    ),
    Option(
        'precision',
        str,
        'auto',
        'Precision of training steps: float32, bfloat16, or auto (bfloat16 if the hardware has instructions for it).',
    ),
    Option(
        'class_weights',
        str,
        'none',
        'Weights of the classes in the training loss on labels: none, auto (inverse class frequency), or a table with '
        'the columns class and weight. Validation is not weighted.',
    ),
)
DATA_DEFAULTS = dict(holdout=0.0, grow=1.0)  # of options of the data that are neither None nor False by default
OF_ONE_RUN = ('lr',)  # settings that the runs which a run needs do not get


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
        if value is None:
            continue  # the default of an option that may be nothing
        if isinstance(value, bool):
            words.append(option_flag(name if value else f'no_{name}'))
        else:
            words += [option_flag(name), str(value)]
    return words


def given_options(
    options: dict,  # Of kdfast.data.load, by name, without the source
) -> dict:  # True for a flag
    "Return the options that are not at their defaults, as the command line takes them."
    given = {name: value for name, value in options.items() if _is_given(name, value)}
    return given | dict(resplit=True) if 'resplit' in given else given  # the seed of a split is that of the run


def _is_given(name, value):
    "Whether an option is not at its default; 0 is not False, as the seed of a split"
    return value is not None and value is not False and value != DATA_DEFAULTS.get(name)


def layer_pairs(
    layers: str,  # TEACHER_LAYER:STUDENT_LAYER,…
) -> list:  # (teacher's, student's) of each; empty if malformed
    "Parse pairs of layers."
    pairs = [tuple(name.strip() for name in pair.split(':')) for pair in layers.split(',')]
    return pairs if all(len(pair) == 2 and all(pair) for pair in pairs) else []


def checked_layer_pairs(
    layers: str,  # TEACHER_LAYER:STUDENT_LAYER,…
) -> list:  # (teacher's, student's) of each
    "Parse pairs of layers. Raises ValueError if they are malformed."
    pairs = layer_pairs(layers)
    if not pairs:
        raise ValueError(f'layers={layers!r}: expected TEACHER_LAYER:STUDENT_LAYER,…')
    return pairs


def check_value(
    recipe: str,  # Name of the recipe, for the error
    name: str,  # Of the option
    value: object,  # To check
):
    "Raise KdfastError for a value outside the range of its option."
    in_range, expected = RANGES.get(name, (lambda v: True, ''))
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        in_range, expected = (lambda v: False), 'a finite number'
    if not in_range(value):
        hint = network_hint(str(value)) if name in NETWORK_OPTIONS else ''
        raise KdfastError(f'{option_flag(name)} {value} of {recipe} is out of range: expected {expected}{hint}')


def network_hint(
    value: str,  # That names no network
) -> str:
    "Return what the user may have meant, for the end of an error message."
    if value.isidentifier():  # resnet18
        return f'; did you mean torchvision:{value} or timm:{value}?'
    if value.endswith('.py'):
        return f'; add the function that builds the network, {value}:FUNCTION'
    if value.endswith(WEIGHT_SUFFIXES):
        return f'; a file of weights needs the name of its network, such as torchvision:resnet18@{value}'
    return ''
