"Every component of the loss: by step and by epoch, on training and validation images."

import csv
import json
import shutil

import pytest
import torch
from conftest import begun, beside
from fastai.basics import Callback
from safetensors.torch import load_file

from kdfast.core.errors import Diverged
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.match import Match
from kdfast.models.study_networks import matched, wide
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.training import metrics_log
from kdfast.training.execute import train

TOTAL = {'teacher': 'hard', 'baseline': 'hard', 'kd': None, 'hint': 'fit', 'exp1': None, 'exp2': None}


def table(file):
    return [
        {name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file.open())
    ]


@pytest.mark.parametrize('recipe', TOTAL)
def test_components_add_up(study, recipe):
    alpha = json.loads((study / recipe / '0' / 'result.json').read_text())['arguments'].get('alpha')
    rows, steps = table(study / recipe / '0' / 'metrics.csv'), table(study / recipe / '0' / 'steps.csv')
    for row in [*rows, *steps]:
        for split in ('train_', 'valid_') if 'train_total' in row else ('',):
            total = row[f'{split}total']
            if TOTAL[recipe]:
                assert total == row[split + TOTAL[recipe]]
            else:
                assert total == pytest.approx((1 - alpha) * row[f'{split}hard'] + alpha * row[f'{split}soft'], rel=1e-4)
            assert (row[f'{split}accuracy'] is None) == (recipe == 'hint')


@pytest.mark.parametrize('recipe', ['kd', 'hint'])
def test_an_epoch_is_the_mean_of_its_steps(study, recipe):
    rows, steps = table(study / recipe / '0' / 'metrics.csv'), table(study / recipe / '0' / 'steps.csv')
    assert [row['epoch'] for row in rows] == list(range(1, len(rows) + 1)) and [s['step'] for s in steps] == list(
        range(1, len(steps) + 1)
    )
    assert len(steps) == 9 * len(rows)  # 72 images, 8 a batch
    for row in rows:
        mine = [s['total'] for s in steps if s['epoch'] == row['epoch']]
        assert row['train_total'] == pytest.approx(sum(mine) / len(mine), rel=1e-5)


def test_the_result_is_the_last_epochs(study):
    result, last = (
        json.loads((study / 'exp2' / '0' / 'result.json').read_text()),
        table(study / 'exp2' / '0' / 'metrics.csv')[-1],
    )
    assert (
        result['train_loss'] == last['train_total']
        and result['soft_loss'] == last['train_soft']
        and result['hard_loss'] == last['train_hard']
    )
    assert result['valid_loss'] == pytest.approx(last['valid_hard'], rel=0.05)  # which may be in bfloat16


def test_in_float32_the_last_validation_is_the_result(data, tmp_path):
    given = dict(epochs=2, teacher_epochs=1, precision='float32')
    folder = train(find_recipe('exp2'), data, 0, given, tmp_path)
    last = table(folder / 'metrics.csv')[-1]
    assert folder.result['valid_loss'] == pytest.approx(last['valid_hard'], rel=1e-4)
    assert folder.result['valid_accuracy'] == pytest.approx(last['valid_accuracy'], abs=1e-9)


def test_the_best_epoch_is_said_beside_the_last(study):
    result, rows = (
        json.loads((study / 'kd' / '0' / 'result.json').read_text()),
        table(study / 'kd' / '0' / 'metrics.csv'),
    )
    assert (
        result['best_valid_accuracy']
        == max(row['valid_accuracy'] for row in rows)
        == rows[result['best_epoch'] - 1]['valid_accuracy']
    )


def test_the_schedule_is_one_cycle(study):
    lr = [s['lr'] for s in table(study / 'baseline' / '0' / 'steps.csv')]
    top = lr.index(max(lr))
    assert lr[0] < lr[top] > lr[-1] and max(lr) == pytest.approx(0.2, rel=0.01) and 0.2 < top / len(lr) < 0.3
    assert lr[:top] == sorted(lr[:top]) and lr[top:] == sorted(lr[top:], reverse=True)


def test_a_diverged_run_is_no_result(kdfast, images, tmp_path):
    done = kdfast('run', 'baseline', '--lr', '1e20', '--data', images, '--runs', tmp_path)
    folder = tmp_path / 'tiny' / 'baseline,lr=1e+20' / '0'
    assert done.status == 4 and 'try a lower --lr' in done.err
    state = json.loads((folder / 'run.json').read_text())
    assert state['status'] == 'diverged' and 'loss became' in state['reason']
    assert not (folder / 'result.json').exists() and not (folder / 'weights.safetensors').exists()
    listed = kdfast('ls', '--runs', tmp_path)
    assert 'diverged' in listed.out


class Poison(Callback):
    "Makes one number that training depends on infinite or not a number, at one step"

    order = 8  # before Hint asks its teacher; after Distill asked

    def __init__(self, where, value, step):
        self.where, self.value, self.at = where, value, step

    def before_batch(self):
        if self.training and self.iter == self.at and self.where in ('weight', 'teacher'):
            guide = next((cb for cb in self.learn.cbs if isinstance(cb, (Distill, Hint))), None)
            teacher = guide and (guide.inference_teacher.network or guide.teacher)  # without a copy in the first step
            next((self.model if self.where == 'weight' else teacher).parameters()).data[0, 0, 0, 0] = self.value

    def after_loss(self):
        if self.training and self.iter == self.at and self.where == 'loss':
            self.learn.loss_grad = self.learn.loss = self.loss_grad * self.value

    def before_step(self):
        if self.iter == self.at and self.where == 'gradient':
            next(self.model.parameters()).grad[0, 0, 0, 0] = self.value


@pytest.mark.parametrize(
    'recipe,where',
    [
        ('kd', 'weight'),
        ('kd', 'teacher'),
        ('kd', 'gradient'),
        ('kd', 'loss'),
        ('hint', 'teacher'),
        ('hint', 'gradient'),
    ],
)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_not_finite_end_the_run_before_the_step(study, data, tmp_path, recipe, where, value):
    runs = beside(study, tmp_path, 'teacher')
    shutil.rmtree(runs / 'tiny' / 'teacher' / '0' / 'outputs')  # so that it is asked
    with pytest.raises(Diverged, match='a gradient became' if where in ('gradient', 'loss') else 'loss became'):
        train(find_recipe(recipe), data, 0, dict(epochs=1), runs, [lambda _: Poison(where, value, 3)])
    folder = RunDir(runs / 'tiny' / f'{recipe},epochs=1' / '0')
    assert (
        folder.status == 'diverged'
        and not (folder / 'result.json').exists()
        and not (folder / 'weights.safetensors').exists()
    )
    kept = [load_file(file) for file in (folder / 'resume').glob('*.safetensors')]
    assert kept and all(t.isfinite().all() for tensors in kept for t in tensors.values())


def on_a_gpu(monkeypatch, every):
    "As where numbers are read once in so many batches"
    monkeypatch.setattr(metrics_log, 'reads_at_once', lambda device: False)
    monkeypatch.setattr(metrics_log, 'LOOK_EVERY', every)


@pytest.mark.parametrize('recipe', ['kd', 'hint'])
def test_metrics_read_later_from_a_gpu_are_the_same(study, data, tmp_path, monkeypatch, recipe):
    "Every value of every step, and the epochs' means"
    given = dict(epochs=2)
    whole = train(find_recipe(recipe), data, 0, given, beside(study, tmp_path / 'whole', 'teacher'))
    on_a_gpu(monkeypatch, 4)
    later = train(find_recipe(recipe), data, 0, given, beside(study, tmp_path / 'later', 'teacher'))
    rows = [
        [{k: v for k, v in row.items() if k != 'seconds'} for row in table(folder / 'metrics.csv')]
        for folder in (whole, later)
    ]
    assert (whole / 'steps.csv').read_text() == (later / 'steps.csv').read_text() and rows[0] == rows[1]


@pytest.mark.parametrize('where', ['weight', 'gradient', 'loss'])
def test_divergence_read_later_ends_the_run_before_a_row_or_a_checkpoint(study, data, tmp_path, monkeypatch, where):
    on_a_gpu(monkeypatch, 50)
    with pytest.raises(Diverged, match='in epoch 1, step [45]: try a lower --lr'):
        train(find_recipe('baseline'), data, 0, dict(epochs=2), tmp_path, [lambda _: Poison(where, float('nan'), 3)])
    folder = RunDir(tmp_path / 'tiny' / 'baseline,epochs=2' / '0')
    assert folder.status == 'diverged' and not (folder / 'metrics.csv').exists() and not (folder / 'steps.csv').exists()
    kept = [load_file(file) for file in (folder / 'resume').glob('*.safetensors')]
    assert kept and all(t.isfinite().all() for tensors in kept for t in tensors.values())


WAITS = {'item', 'tolist', 'cpu', 'numpy', '__bool__', '__float__', '__int__', '__index__', '__array__', 'nonzero'}


class Waits(torch.overrides.TorchFunctionMode):
    "Counts calls for which the host waits for the device, while it is told to"

    def __init__(self):
        super().__init__()
        self.counts, self.calls = False, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, '__name__', '')
        if self.counts and (name in WAITS or name == 'to' and 'cpu' in args[1:]):
            self.calls.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    'make', [list, lambda: [Distill(wide(3).eval())], lambda: [Match(wide(3).eval(), hint_loss, 1.0, 'stage2:stage2')]]
)
def test_a_step_waits_for_the_device_once_in_so_many(data, tmp_path, monkeypatch, make):
    on_a_gpu(monkeypatch, 5)
    waits = Waits()

    class First(Callback):
        order = -20

        def before_batch(self):
            waits.counts = (
                self.training and self.epoch + self.iter > 0
            )  # in a fit's first step a copy of the teacher is compared

    class Last(Callback):
        order = 100

        def after_batch(self):
            waits.counts = False

    run = begun(data, tmp_path / 'run')
    learn = run.learner(run.build(matched))
    with waits:
        learn.fit(2, 0.01, cbs=[*make(), First(), Last()])
    assert (
        waits.calls == ['tolist'] * 2 and run.metrics_log.steps == 18
    )  # nine steps an epoch; the rest is read when it ends


class Parts(Callback):
    "Has parts of the training loss, and does not run in validation"

    run_valid, order = False, 3

    def after_loss(self):
        self.parts = dict(total=self.loss.detach() + 100, fit=torch.tensor(100.0), hard=self.loss.detach())


def test_validation_never_shows_parts_of_a_training_batch(data, tmp_path):
    run = begun(data, tmp_path / 'run')
    learn = run.learner(run.build(matched))
    learn.fit(2, 0.01, cbs=Parts())
    for row, values in zip(run.metrics_log.epochs, learn.recorder.values):
        assert (
            row['valid_total'] == row['valid_hard'] == pytest.approx(values[1])
            and row['valid_fit'] is None
            and row['train_fit'] == 100
        )


def test_lr_find_is_not_logged_as_a_stage(data, tmp_path):
    run = begun(data, tmp_path / 'run')
    learn = run.learner(run.build(matched))
    learn.lr_find(show_plot=False, end_lr=1e4)  # a loss that explodes is what it looks for
    learn.fit(1, 0.01)
    assert [row['stage'] for row in run.metrics_log.epochs] == [1] and run.metrics_log.steps == 9


def test_labels_of_another_shape_have_no_accuracy(data, tmp_path):
    run = begun(data, tmp_path / 'run')

    class Numbers(Callback):
        def before_batch(self):
            self.learn.yb = (torch.nn.functional.one_hot(self.y, 3).float(),)

    run.learner(run.build(matched), loss_func=torch.nn.MSELoss(), metrics=None).fit(1, 0.01, cbs=Numbers())
    assert (
        run.metrics_log.epochs[0]['train_accuracy'] is run.metrics_log.epochs[0]['valid_accuracy'] is None
        and run.metrics_log.epochs[0]['valid_hard'] > 0
    )
