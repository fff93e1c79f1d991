"""Optimizers and losses are found by the files that define them."""

from importlib import import_module
from pkgutil import iter_modules

import pytest
from torch import nn

import kdfast.all
from kdfast.distill import losses
from kdfast.runs import options
from kdfast.runs.options import OPTIMIZER_FILES, OPTIMIZERS, Option
from kdfast.training import optimizers
from kdfast.training.optimizers import optimizer_named


def test_the_names_are_those_of_the_modules_and_sgd_comes_first():
    assert OPTIMIZERS[0] == 'sgd' and set(OPTIMIZERS) == {module.name for module in iter_modules(optimizers.__path__)}


def test_help_lists_the_optimizers_although_recipes_do_not(monkeypatch, tmp_path, kdfast):
    "A new optimizer is one file: no recipe and no command has to name it"
    for file in OPTIMIZER_FILES.glob('*.py'):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / 'lion.py').write_text('"""Lion, sign of the momentum.\n\nNo more."""')
    monkeypatch.setattr(options, 'OPTIMIZER_FILES', tmp_path)
    monkeypatch.setattr(options, 'OPTIMIZERS', [*OPTIMIZERS, 'lion'])
    monkeypatch.setenv('COLUMNS', '400')
    shown = ' '.join(kdfast('run', 'kd', '--help').out.split())
    listed = 'Optimizer: sgd (SGD with momentum), adamw (AdamW: Adam with decoupled weight decay'
    assert listed in shown and 'muon (Muon for' in shown
    assert 'lion (Lion, sign of the momentum)' in shown and 'No more' not in shown


def test_a_recipe_that_names_all_optimizers_is_not_completed():
    text = f'One of {", ".join(OPTIMIZERS)}'
    assert Option('optimizer', str, 'sgd', text).full_help == text
    assert Option('lr', float, 0.1, 'Peak').full_help == 'Peak'


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_an_optimizer_has_momentum_and_weight_decay(name):
    opt = optimizer_named(name)([list(nn.Linear(2, 2).parameters())], lr=0.1, mom=0.9, wd=5e-3)
    assert opt.hypers[0]['lr'] == 0.1 and opt.hypers[0]['mom'] == 0.9 and opt.hypers[0]['wd'] == 5e-3


@pytest.mark.parametrize('package', [losses, optimizers])
def test_what_a_module_lists_is_exported(package):
    for module in iter_modules(package.__path__, f'{package.__name__}.'):
        found = import_module(module.name)
        assert all(getattr(kdfast.all, name) is getattr(found, name) for name in found.__all__)
