"""The star import of recipes and notebooks: fastai's vision library and the public names of kdfast.

Losses and optimizers are exported from the `__all__` of their own modules.
"""

from importlib import import_module as _import_module
from pkgutil import iter_modules as _iter_modules

from fastai.vision.all import *

from kdfast.distill import losses as _losses
from kdfast.distill.distill import Distill
from kdfast.distill.freeze import FreezeNorm
from kdfast.distill.hint import Hint
from kdfast.distill.match import Match
from kdfast.distill.mixup import MixUp
from kdfast.distill.regressor import regressor
from kdfast.models.embedding import projected, standardized
from kdfast.models.folding import folded
from kdfast.models.front import front, front_back
from kdfast.models.study_networks import matched, network, thin, wide
from kdfast.training import optimizers as _optimizers
from kdfast.training.run import Run

for _package in (_losses, _optimizers):
    for _info in _iter_modules(_package.__path__, f'{_package.__name__}.'):
        _module = _import_module(_info.name)
        globals().update({name: getattr(_module, name) for name in _module.__all__})
