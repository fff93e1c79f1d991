"""Parse names of networks. Imports no torch.

Examples: wide, torchvision:resnet18, timm:vit_tiny_patch16_224(img_size=64), models.py:tiny@tiny.pth.
"""

import ast
import os
import re
from dataclasses import dataclass, replace

from kdfast.core.errors import KdfastError

NETWORKS = ['wide', 'thin', 'matched']  # functions of kdfast.models.study_networks
LIBRARIES = ('torchvision', 'timm')
PRETRAINED = 'pretrained'
PATTERN = re.compile(
    r'((?P<where>torchvision|timm|.+?\.py|\w+(\.\w+)*):)?(?P<what>[\w.]+)(?P<arguments>\(.*?\))?(@(?P<weights>.+))?'
)
ANY_NETWORK = (
    f'{", ".join(NETWORKS)}, torchvision:NAME, timm:NAME, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, optionally '
    'followed by arguments in parentheses and by weights (@pretrained or @FILE)'
)
RESERVED = {  # arguments of torchvision and timm that kdfast sets
    'num_classes',
    'weights',
    'pretrained',
    'pretrained_cfg',
    'pretrained_cfg_overlay',
    'checkpoint_path',
    'cache_dir',
    'progress',
}


@dataclass(frozen=True)
class Name:
    "The parts of a network's name; `str` joins them again."

    where: str  # torchvision, timm, FILE.py or PACKAGE.MODULE; empty for a network of kdfast
    what: str  # the name there
    arguments: tuple  # (name, value) of each keyword argument
    weights: str = ''  # pretrained, or a file

    def __str__(self):
        where = f'{self.where}:' if self.where else ''
        arguments = f'({", ".join(f"{name}={value!r}" for name, value in self.arguments)})' if self.arguments else ''
        return f'{where}{self.what}{arguments}' + (f'@{self.weights}' if self.weights else '')

    @property
    def keywords(self) -> dict:
        "The keyword arguments by name."
        return dict(self.arguments)

    @property
    def is_file(self) -> bool:
        "Whether a function of a file builds the network."
        return self.where.endswith('.py')

    @property
    def is_code(self) -> bool:
        "Whether a function of a file or a package builds the network, not kdfast or a library."
        return self.where not in ('', *LIBRARIES)

    def with_arguments(
        self,
        **arguments,  # Added to the others, or in place of those with the same name
    ) -> 'Name':
        "Return this name with additional arguments."
        return replace(self, arguments=tuple((self.keywords | arguments).items()))


def parse(
    name: str,  # wide, torchvision:resnet18, models.py:tiny(width=16)@tiny.pth
) -> Name:
    "Parse the name of a network. Raises KdfastError if it is malformed."
    found = PATTERN.fullmatch(name)
    if not found:
        raise KdfastError(f'{name} names no network: expected {ANY_NETWORK}')
    where, what, weights = (found[group] or '' for group in ('where', 'what', 'weights'))
    arguments = parse_arguments(name, found['arguments'] or '()')
    reserved = sorted(RESERVED & {key for key, _ in arguments}) if where in LIBRARIES else []
    if reserved:
        raise KdfastError(
            f'{name}: {reserved[0]} cannot be given; name weights behind an @ (@{PRETRAINED} or @FILE), classes come '
            'from the data'
        )
    return Name(where, what, arguments, weights)


def parse_arguments(
    name: str,  # Of the network, for the error
    text: str,  # Keyword arguments in parentheses
) -> tuple:  # (name, value) of each
    "Parse keyword arguments with plain values; nothing is evaluated. Raises KdfastError."
    try:
        call = ast.parse(f'f{text}', mode='eval').body
        if not isinstance(call, ast.Call):
            raise ValueError(text)
        names = [keyword.arg for keyword in call.keywords]
        if not isinstance(call.func, ast.Name) or call.args or None in names or len(set(names)) < len(names):
            raise ValueError(text)
        return tuple((keyword.arg, ast.literal_eval(keyword.value)) for keyword in call.keywords)
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError) as e:
        raise KdfastError(
            f'{name}: {text} are no arguments; expected keywords with plain values, such as (img_size=64)'
        ) from e


def names_network(
    name: str,  # Of an option of the command line
) -> bool:
    "Return whether a text has the form of a network's name. Raises KdfastError for malformed arguments."
    return bool(PATTERN.fullmatch(name)) and (bool(parse(name).where) or parse(name).what in NETWORKS)


def is_run(
    name: str,  # Of an option of the command line
) -> bool:
    "Return whether a text is the path of a run directory."
    return os.path.isfile(os.path.join(name, 'run.json'))
