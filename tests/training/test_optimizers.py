"""Optimizers and losses are found by the files that define them."""

from importlib import import_module
from pkgutil import iter_modules

import pytest
from torch import nn

import kdfast.all
from kdfast.distill import losses
from kdfast.runs.options import OPTIMIZERS
from kdfast.training import optimizers
from kdfast.training.optimizers import optimizer_named


def test_the_names_are_those_of_the_modules_and_sgd_comes_first():
    assert OPTIMIZERS[0] == 'sgd' and set(OPTIMIZERS) == {module.name for module in iter_modules(optimizers.__path__)}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_an_optimizer_has_momentum_and_weight_decay(name):
    opt = optimizer_named(name)([list(nn.Linear(2, 2).parameters())], lr=0.1, mom=0.9, wd=5e-3)
    assert opt.hypers[0]['lr'] == 0.1 and opt.hypers[0]['mom'] == 0.9 and opt.hypers[0]['wd'] == 5e-3


@pytest.mark.parametrize('package', [losses, optimizers])
def test_what_a_module_lists_is_exported(package):
    for module in iter_modules(package.__path__, f'{package.__name__}.'):
        found = import_module(module.name)
        assert all(getattr(kdfast.all, name) is getattr(found, name) for name in found.__all__)
