"A timed run is a rehearsal with a few full batches, from which the time of the whole run follows."

from dataclasses import replace
from itertools import count

import pytest
import rehearsals
from rehearsals import here

from kdfast.data.dataloaders import loaders
from kdfast.runs.recipes import find_recipe
from kdfast.training import timing
from kdfast.training.timing import STEPS, TimedBatches, time_recipes, typical_interval

temporary = pytest.fixture(rehearsals.temporary)


def wanted(*recipes):
    return [(find_recipe(name), find_recipe(name).resolve(given), 0) for name, given in recipes]


def test_the_time_of_a_run_is_that_of_all_steps_of_all_epochs(data, tmp_path, temporary, monkeypatch, capsys):
    "A clock that goes on by a second whenever it is read: a step and a validation batch take one. 9 steps, 1 batch"
    before, ticks = here(), count()
    monkeypatch.setattr(timing, 'perf_counter', lambda: float(next(ticks)))
    of_kd = dict(epochs=5, teacher_epochs=3)
    found = time_recipes(
        wanted(('teacher', dict(epochs=3)), ('baseline', dict(epochs=7)), ('kd', of_kd)), data, tmp_path / 'runs'
    )
    assert list(found) == ['teacher,epochs=3', 'baseline,epochs=7', 'kd,epochs=5,teacher_epochs=3']
    for cost, epochs in zip(found.values(), (3, 7, 5)):
        evaluation, once = (72 + 36) / 256, 2  # readings of the clock outside of the fit
        assert cost.seconds == pytest.approx(epochs * (9 + 1) + evaluation + once, abs=1)
        assert cost.kept > 10**5 and cost.while_trained > cost.kept
    assert here() == before and not (tmp_path / 'runs').exists() and capsys.readouterr() == ('', '')


def test_a_fit_ends_after_two_slow_steps(data, tmp_path, temporary, monkeypatch):
    "Each reading of the clock is ten seconds later"
    ticks = count(0, 10)
    monkeypatch.setattr(timing, 'perf_counter', lambda: float(next(ticks)))
    (cost,) = time_recipes(wanted(('baseline', dict(epochs=1))), data, tmp_path).values()
    readings = next(ticks) // 10
    assert readings <= 10 and cost.seconds == pytest.approx(10 * (9 + 1) + 10 * 108 / 256 + 20, abs=10)


def test_batches_have_their_real_size_whatever_the_progress(data):
    for dl in loaders(replace(data, grow=0.5)).loaders:
        timed = dl.new(cls=TimedBatches)
        timed.progress = 0.0
        batches = list(timed)
        assert len(batches) == (STEPS if dl.shuffle else 1)
        assert all(x.shape == (min(dl.bs, 36 if not dl.shuffle else 72), 3, 8, 8) for x, _ in batches)


def test_the_warm_up_is_left_out_unless_nothing_would_be_left():
    assert typical_interval([0, 9, 18, 27, 28, 29]) == 1 and typical_interval([0, 9, 10]) == pytest.approx(5)
    assert typical_interval([0]) == 0
