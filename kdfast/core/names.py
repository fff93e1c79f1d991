"Names of networks: wide, torchvision:resnet18, timm:vit_tiny_patch16_224(img_size=64), models.py:tiny@tiny.pth. Imports no torch."

import ast
import os
import re
from dataclasses import dataclass, replace

from kdfast.core.errors import KdfastError

NETWORKS = ['wide', 'thin', 'matched']  # functions of kdfast.models.study_networks
LIBRARIES = ('torchvision', 'timm')
PRETRAINED = 'pretrained'
FORM = re.compile(
    r'((?P<where>torchvision|timm|.+?\.py|\w+(\.\w+)*):)?(?P<what>[\w.]+)(?P<arguments>\(.*?\))?(@(?P<weights>.+))?'
)


ANY_NETWORK = (
    f'{", ".join(NETWORKS)}, torchvision:NAME, timm:NAME, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, with arguments in parentheses '
    'where it takes any, and @pretrained or @FILE behind it for its weights'
)


RESERVED = {
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
    "A network's name, taken apart; `str` puts it together again."

    where: str  # torchvision, timm, FILE.py, PACKAGE.MODULE; empty for a network of kdfast
    what: str  # What it is called there
    arguments: tuple  # (name, value) of each keyword argument
    weights: str = ''  # pretrained, or a file

    def __str__(self):
        where = f'{self.where}:' if self.where else ''
        arguments = f'({", ".join(f"{name}={value!r}" for name, value in self.arguments)})' if self.arguments else ''
        return f'{where}{self.what}{arguments}' + (f'@{self.weights}' if self.weights else '')

    @property
    def keywords(self):
        return dict(self.arguments)

    @property
    def is_file(self):
        return self.where.endswith('.py')

    @property
    def is_code(self):
        "Whether a function that neither kdfast nor a library offers by name builds it"
        return self.where not in ('', *LIBRARIES)

    def having(self, **arguments):
        "With these arguments, too"
        return replace(self, arguments=tuple((self.keywords | arguments).items()))


def parse(
    name: str,  # wide, torchvision:resnet18, models.py:tiny(width=16)@tiny.pth
) -> Name:
    "Take the name of a network apart. Raises KdfastError where it is none."
    found = FORM.fullmatch(name)
    if not found:
        raise KdfastError(f'{name} names no network: expected {ANY_NETWORK}')
    where, what, weights = (found[group] or '' for group in ('where', 'what', 'weights'))
    arguments = keywords(name, found['arguments'] or '()')
    reserved = sorted(RESERVED & {key for key, _ in arguments}) if where in LIBRARIES else []
    if reserved:
        raise KdfastError(
            f'{name}: {reserved[0]} cannot be given; name weights behind an @ (@{PRETRAINED} or @FILE), classes come from the data'
        )
    return Name(where, what, arguments, weights)


def keywords(name, text):
    "The arguments in parentheses: keywords with plain values, never evaluated"
    try:
        call = ast.parse(f'f{text}', mode='eval').body
        given = [word.arg for word in call.keywords]
        if not isinstance(call.func, ast.Name) or call.args or None in given or len(set(given)) < len(given):
            raise ValueError(text)
        return tuple((word.arg, ast.literal_eval(word.value)) for word in call.keywords)
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError) as e:
        raise KdfastError(
            f'{name}: {text} are no arguments; expected keywords with plain values, such as (img_size=64)'
        ) from e


def names_network(name):
    "Whether it could be one: its form, not whether there is such a network. Raises KdfastError where its arguments are none"
    return bool(FORM.fullmatch(name)) and (bool(parse(name).where) or parse(name).what in NETWORKS)


def is_run(
    name: str,  # What may name a network
) -> bool:
    "Whether it is the directory of a run."
    return os.path.isfile(os.path.join(name, 'run.json'))
