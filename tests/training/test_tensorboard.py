import csv

import pytest


def test_tensorboard_gets_what_the_files_hold(kdfast, images, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = kdfast('run', 'hint', '--epochs', 2, '--tensorboard', '--data', images, '--runs', tmp_path)
    assert done.status == 0, done.err
    for run, columns in (
        ('hint,epochs=2', {'epoch/valid_fit': 'valid_fit', 'epoch/train_total': 'train_total', 'epoch/lr': 'lr'}),
        ('teacher', {'epoch/valid_accuracy': 'valid_accuracy', 'epoch/train_hard': 'train_hard'}),
    ):
        folder = tmp_path / 'tiny' / run / '0'
        events = EventAccumulator(str(folder / 'tensorboard')).Reload()
        rows, steps = (list(csv.DictReader((folder / name).open())) for name in ('metrics.csv', 'steps.csv'))
        for tag, column in columns.items():
            assert [(e.step, e.value) for e in events.Scalars(tag)] == [
                (x, pytest.approx(float(row[column]))) for x, row in enumerate(rows, 1)
            ]
        assert [e.value for e in events.Scalars('step/total')] == [pytest.approx(float(row['total'])) for row in steps]


def test_without_the_package_it_says_what_to_install(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torch.utils.tensorboard', None)
    monkeypatch.delitem(__import__('sys').modules, 'kdfast.training.tensorboard', raising=False)
    done = kdfast('run', 'baseline', '--tensorboard', '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and "pip install 'kdfast[tensorboard]'" in done.err and not (tmp_path / 'runs').exists()
