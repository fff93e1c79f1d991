from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.basics import CrossEntropyLossFlat, Learner
from fastai.callback.progress import ProgressCallback
from sklearn.metrics import confusion_matrix, recall_score
from torch import nn
from torch.overrides import TorchFunctionMode

from kdfast.core.errors import Diverged, KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.data.dataset import Data
from kdfast.models.cost import count_macs, measure_latency
from kdfast.runs.run_dir import RunDir
from kdfast.training import predictions
from kdfast.training.evaluation import count_confusion, evaluate_classifier, try_measure
from kdfast.training.final_test import evaluate_test
from kdfast.training.predictions import predict_split


def made_up(n_classes, n_valid, n_train=64):
    "Random images of 8×8 with random labels"
    random = np.random.default_rng(n_classes)

    def split(n):
        return random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), random.integers(0, n_classes, n)

    classes = [f'class {c}' for c in range(n_classes)]
    return Data('made-up', classes, split(n_train), split(n_valid), [0.5] * 3, [0.3] * 3, False, 'x')


def network(n_classes):
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, n_classes))


def learner(data, net=None):
    torch.manual_seed(0)
    learn = Learner(loaders(data), net or network(len(data.classes)), CrossEntropyLossFlat(), cbs=[])
    learn.remove_cb(ProgressCallback)
    return learn


def a_run(tmp_path, data, learn):
    "What of a run its evaluation asks for"
    folder, notes = RunDir(tmp_path / 'made-up' / 'kd' / '0'), []
    folder.start(dict(recipe='kd'), '')
    rows = [dict(epoch=1, valid_accuracy=None), dict(epoch=2, valid_accuracy=0.25)]
    record = SimpleNamespace(epochs=rows)
    return SimpleNamespace(
        data=data, dls=learn.dls, folder=folder, metrics_log=record, say=notes.append, notes=notes, rehearsal=False
    )


@pytest.mark.parametrize('n_classes,n_valid', [(2, 5), (3, 300), (40, 700), (1000, 600)])
def test_one_pass_says_what_fastai_and_scikit_learn_say(tmp_path, n_classes, n_valid):
    "Also where most classes have no validation image"
    data = made_up(n_classes, n_valid)
    learn = learner(data)
    logits, actual, losses = learn.get_preds(dl=learn.dls.valid, with_loss=True, act=lambda x: x)
    run = a_run(tmp_path, data, learn)
    result = evaluate_classifier(run, learn)
    matrix = confusion_matrix(data.valid[1], logits.argmax(1), labels=range(n_classes))
    classes, kept = run.folder.confusion()
    assert kept == matrix.tolist() and classes == data.classes
    assert result['valid_accuracy'] == pytest.approx(matrix.trace() / n_valid)
    recalls = recall_score(data.valid[1], logits.argmax(1), labels=np.unique(data.valid[1]), average=None)
    assert result['valid_balanced_accuracy'] == pytest.approx(recalls.mean())
    assert [v for v in result['class_accuracy'].values() if v is not None] == pytest.approx(recalls.tolist())
    assert result['valid_loss'] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert (result['best_valid_accuracy'], result['best_epoch'], result['valid_images']) == (0.25, 2, n_valid)
    saved = run.folder.arrays('predictions.npz')
    assert (saved['predicted'] == logits.argmax(1).numpy()).all() and (saved['actual'] == data.valid[1]).all()
    assert (saved['logits'] == logits.half().numpy()).all()
    plain = learn.dls.train.new(learn.dls.train_ds.plain(), shuffle=False, drop_last=False)
    train_logits, train_actual = learn.get_preds(dl=plain, act=lambda x: x)
    assert result['train_accuracy'] == float((train_logits.argmax(1) == train_actual).double().mean())
    off = matrix * (1 - np.eye(n_classes, dtype=int))
    worst = [n for *_, n in result['worst_pairs']]
    assert worst == sorted(off.flatten().tolist(), reverse=True)[: len(worst)]
    for a, b, n in result['worst_pairs']:
        assert off[classes.index(a), classes.index(b)] == n > 0


@pytest.mark.parametrize('size', [None, 6])
def test_test_images_are_evaluated_once_and_as_validation_images_are(tmp_path, size):
    data = replace(made_up(3, 40), size=size)
    data = replace(data, test=made_up(3, 50).valid)
    torch.manual_seed(0)
    learn = learner(data, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)))
    result = evaluate_test(a_run(tmp_path, data, learn), learn)
    as_validation = learner(replace(data, valid=data.test), learn.model)
    logits, actual, losses = as_validation.get_preds(with_loss=True, act=lambda x: x)
    assert result['test_accuracy'] == float((logits.argmax(1) == actual).double().mean())
    assert result['test_loss'] == pytest.approx(float(losses.mean()), rel=1e-5) and result['test_images'] == 50
    saved = RunDir(tmp_path / 'made-up' / 'kd' / '0').arrays('test_predictions.npz')
    assert (saved['predicted'] == logits.argmax(1).numpy()).all() and (saved['actual'] == data.test[1]).all()
    without = evaluate_test(a_run(tmp_path / 'other', replace(data, test=None), learn), learn)
    assert set(without.values()) == {None}


def test_what_it_is_surest_of_comes_first(tmp_path):
    data = made_up(3, 300)
    learn = learner(data)
    run = a_run(tmp_path, data, learn)
    evaluate_classifier(run, learn)
    shown, logits = run.folder.arrays('confused.npz'), run.folder.arrays('predictions.npz')['logits'].astype(float)
    assert len(shown['index']) > 16 and (shown['actual'] != shown['predicted']).all()
    first = shown['index'][:8]
    of_pair = np.flatnonzero((data.valid[1] == shown['actual'][0]) & (logits.argmax(1) == shown['predicted'][0]))
    surplus = logits.max(1) - logits[np.arange(300), data.valid[1]]
    assert surplus[first].min() >= np.sort(surplus[of_pair])[-8] - 1e-2
    assert (shown['images'][0] == data.valid[0][first[0]]).all()


class Largest(TorchFunctionMode):
    "The largest tensor that any operation gives"

    numel = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_memory_is_for_images_and_classes_squared_and_not_for_their_product(tmp_path, monkeypatch):
    "300 classes, 1,500 images: 450,000 logits, of which no two batches are ever together"
    monkeypatch.setattr(predictions, 'LOGITS_KEPT', 10_000)
    data = made_up(300, 1500, n_train=1500)
    learn = learner(data)
    run = a_run(tmp_path, data, learn)
    with Largest() as largest:
        result = evaluate_classifier(run, learn)
    assert largest.numel == 300**2 and result['valid_images'] == 1500
    assert set(run.folder.arrays('predictions.npz')) == {'actual', 'predicted'}
    monkeypatch.setattr(predictions, 'LOGITS_KEPT', 450_000)
    with Largest() as largest:
        evaluate_classifier(run, learn)
    assert largest.numel == 450_000  # it sees them
    assert run.folder.arrays('predictions.npz')['logits'].shape == (1500, 300)


@pytest.mark.parametrize('value,said', [(float('nan'), 'NaN'), (float('inf'), 'loss of the trained network is nan')])
def test_what_is_no_number_is_no_result(value, said):
    data = made_up(3, 20)
    learn = learner(data)
    learn.model[2].bias.data[1] = value
    with pytest.raises(Diverged, match=said):
        predict_split(learn, learn.dls.valid, 3)


@pytest.mark.parametrize(
    'net', [network(5), nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Sequential(nn.AvgPool2d(8), nn.Flatten(0))]
)
def test_what_are_no_logits_is_said(net):
    data = made_up(3, 20)
    learn = learner(data, net)
    learn.loss_func = lambda pred, y: pred.sum() * 0
    learn.model.weight = nn.Parameter(torch.zeros(1))  # fastai looks for one
    with pytest.raises(KdfastError, match='expected \\(images, 3\\)'):
        predict_split(learn, learn.dls.valid, 3)


def test_evaluating_leaves_the_learner_as_it_was():
    data = made_up(3, 20)
    learn = learner(data)
    before = list(learn.cbs), learn.loss_func
    predict_split(learn, learn.dls.valid, 3)
    assert (list(learn.cbs), learn.loss_func) == before


def test_multiply_adds_by_hand(tmp_path):
    data = made_up(3, 20)
    assert count_macs(network(3), a_run(tmp_path, data, learner(data))) == 12 * 3
    conv = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(320, 3))
    assert count_macs(conv, a_run(tmp_path, data, learner(data))) == 64 * 5 * 27 + 320 * 3


class Tokens(nn.Module):
    "Patches, attention, the mean of the tokens"

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.head(self.layer(self.patches(x).flatten(2).mT).mean(1))


class NoSingles(nn.Module):
    "Does not take one image"

    def forward(self, x):
        raise ValueError('too few\nimages')


class NoMultiplications(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def test_what_cannot_be_measured_is_said_and_loses_nothing(tmp_path):
    data = made_up(3, 20)
    run = a_run(tmp_path, data, learner(data))

    def both(net):
        return [
            try_measure(run, 'multiply-adds', count_macs, net),
            try_measure(run, 'latency', measure_latency, net),
        ]

    assert both(NoSingles()) == [None, None]
    assert run.notes == [f'{what} of kd not measured: ValueError: too few' for what in ('multiply-adds', 'latency')]
    assert both(Tokens())[0] > 4 * 3 * 16 * 8 and both(Tokens())[1] > 0 and len(run.notes) == 2
    nothing, latency = both(NoMultiplications())
    assert nothing is None and latency > 0


def test_counts_by_hand():
    found = count_confusion(torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 2, 2, 0]), 4)
    assert found.tolist() == [[1, 1, 0, 0], [0] * 4, [1, 0, 2, 0], [0] * 4]
