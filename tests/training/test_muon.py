"Muon: orthogonal steps for convolutions, those of SGD for all else."

from functools import partial

import pytest
import torch
from conftest import equal, weights
from fastai.optimizer import SGD
from torch import nn

from kdfast.data import load
from kdfast.runs.options import OPTIMIZERS
from kdfast.runs.recipes import find_recipe
from kdfast.training.execute import train
from kdfast.training.optimizers.muon import Muon, orthogonal


def step(make, module, rounds=3, **hypers):
    "The module's parameters after some steps along random gradients, the same for every optimizer"
    draws, optimizer = torch.Generator().manual_seed(5), make(list(module.parameters()), **hypers)
    for _ in range(rounds):
        for p in module.parameters():
            p.grad = torch.randn(p.shape, generator=draws)
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize('dtype', [torch.float32, torch.complex64])
@pytest.mark.parametrize('shape', [(8, 72), (72, 8), (16, 16)])
def test_singular_values_become_nearly_one(shape, dtype):
    matrix = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    within = u.mH @ orthogonal(matrix) @ vt.mH
    assert not dtype.is_complex or within.imag.abs().max() < 1e-4
    within = within.real
    kept = s > 0.1 * s[0]
    assert (within - within.diag().diag()).abs().max() < 1e-4  # the directions are the matrix's own
    assert kept.sum() > 5 and ((0.65 < within.diag()) & (within.diag() < 1.25))[kept].all(), within.diag()
    assert torch.allclose(orthogonal(1e4 * matrix), orthogonal(matrix), atol=1e-3)  # however long the gradient is
    assert not orthogonal(torch.zeros(shape)).any()


def test_it_is_the_newton_schulz_iteration():
    x = torch.randn(20, 90, generator=torch.Generator().manual_seed(0))
    made = orthogonal(x)
    x /= x.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    assert torch.allclose(made, x, atol=1e-4)


def test_what_pytorch_makes_of_a_matrix():
    "torch.optim.Muon takes matrices alone, and computes in bfloat16"
    if not hasattr(torch.optim, 'Muon'):
        pytest.skip('this PyTorch has no Muon')
    conv, matrix = nn.Conv2d(12, 30, 1, bias=False), nn.Linear(12, 30, bias=False)
    with torch.no_grad():
        matrix.weight.copy_(conv.weight[..., 0, 0])
    began = matrix.weight.detach().clone()
    peers = partial(torch.optim.Muon, lr=0.02, momentum=0.9, weight_decay=0.01)
    draws, peer = torch.Generator().manual_seed(5), peers(matrix.parameters())
    for _ in range(3):
        matrix.weight.grad = torch.randn(30, 12, 1, 1, generator=draws)[..., 0, 0]
        peer.step()
    (ours,) = step(Muon, conv, lr=0.2, mom=0.9, wd=0.001)
    moved = (matrix.weight - began).norm()
    assert (ours[..., 0, 0] - matrix.weight).norm() < 0.03 * moved


def test_a_kernel_is_one_matrix_of_all_that_a_filter_sees():
    conv = nn.Conv2d(3, 8, 3, bias=False)
    (began,) = [p.detach().clone() for p in conv.parameters()]
    (ended,) = step(Muon, conv, rounds=1, lr=1.0, mom=0.9)
    gradient = torch.randn(began.shape, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(began - ended, 0.1 * orthogonal(gradient.flatten(1)).view_as(began), atol=1e-6)


@pytest.mark.parametrize(
    'module',
    [nn.Linear(5, 3), nn.BatchNorm2d(4), nn.Conv2d(6, 6, 3, groups=6)],
    ids=['linear', 'batch norm', 'depthwise'],
)
def test_all_else_takes_the_steps_of_sgd(module):
    began = {name: t.clone() for name, t in module.state_dict().items()}
    ours = step(Muon, module, lr=0.1, mom=0.9, wd=0.01)
    module.load_state_dict(began)
    assert all(torch.equal(a, b) for a, b in zip(ours, step(SGD, module, lr=0.1, mom=0.9, wd=0.01)))


def test_channels_last_changes_nothing():
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        made += step(Muon, nn.Conv2d(3, 8, 3, bias=False).to(memory_format=layout), lr=0.2, mom=0.9)
    assert torch.equal(*made)


def test_stages_of_a_study_use_the_optimizer(kdfast, images, tmp_path):
    "What an experiment stands on is trained by the same optimizer; a frozen front stays as it is"
    asked = ['--data', images, '--runs', tmp_path]
    done = kdfast('run', 'exp1', '--epochs', 2, '--optimizer', 'adamw', *asked)
    assert done.status == 0, done.err
    assert {folder.name for folder in (tmp_path / 'tiny').iterdir()} == {
        'teacher,optimizer=adamw',
        'hint,optimizer=adamw',
        'exp1,epochs=2,optimizer=adamw',
    }
    assert f'next  kdfast run baseline --epochs 2 --optimizer adamw --data {images}' in done.out
    hint, exp1 = (
        weights(tmp_path / 'tiny' / name / '0') for name in ('hint,optimizer=adamw', 'exp1,epochs=2,optimizer=adamw')
    )
    front = {name for name in hint if name.startswith(('stem', 'stage1', 'stage2'))}
    assert equal({name: hint[name] for name in front}, {name: exp1[name] for name in front})
    refused = kdfast('run', 'kd', '--optimizer', 'adam', *asked)
    assert (
        refused.status == 2
        and f'--optimizer adam of kd is out of range: expected {" or ".join(OPTIMIZERS)}' in refused.err
    )


def test_muon_learns_more_in_few_epochs(tmp_path):
    digits = load('digits')
    accuracy = {
        name: train(find_recipe('baseline'), digits, 0, dict(epochs=5, optimizer=name), tmp_path).result[
            'valid_accuracy'
        ]
        for name in ('sgd', 'muon')
    }
    assert accuracy['muon'] > accuracy['sgd'] + 0.05, accuracy
