"The time and the disk space of a study follow from the costs of its runs; a deadline stops it."

import time

import pytest
from conftest import make
from rich.console import Console

from kdfast.runs.cost import RunCost
from kdfast.runs.recipes import find_recipe
from kdfast.study import schedule, timing
from kdfast.study.forecast import bytes_needed, seconds_needed, seeds_within
from kdfast.study.jobs import Jobs
from kdfast.study.schedule import OutOfTime, run_tasks
from kdfast.study.tasks import plan
from kdfast.study.timing import measure_costs

COSTS = {
    name: RunCost(seconds, 100, 10 * seconds)
    for name, seconds in dict(baseline=10, teacher=40, kd=20, hint=5, exp2=30).items()
}


def tasks(runs, seeds):
    return plan([(find_recipe(name), {}) for name in ('baseline', 'kd', 'exp2')], range(seeds), 'pets', runs)


def test_jobs_share_the_time_but_a_run_waits_for_what_it_needs(tmp_path):
    "A seed takes 105 s in one job; teacher, hint and exp2 follow each other: 75 s"
    assert seconds_needed(tasks(tmp_path, 2), COSTS, 1) == 210
    assert seconds_needed(tasks(tmp_path, 2), COSTS, 2) == 105
    assert seconds_needed(tasks(tmp_path, 2), COSTS, 8) == 75
    make(tmp_path, 'teacher', 0), make(tmp_path, 'hint', 0)
    assert seconds_needed(tasks(tmp_path, 1), COSTS, 1) == 60 and seconds_needed(tasks(tmp_path, 1), COSTS, 8) == 30


def test_disk_holds_all_results_and_the_checkpoints_of_running_runs(tmp_path):
    assert bytes_needed(tasks(tmp_path, 2), COSTS, 2) == 10 * 100 + 2 * 400
    make(tmp_path, 'teacher', 0)
    assert bytes_needed(tasks(tmp_path, 1), COSTS, 9) == 4 * 100 + 650


def test_the_seeds_of_a_budget(tmp_path):
    def of(seeds):
        return tasks(tmp_path, seeds)

    assert [seeds_within(s, of, COSTS, 1, 20) for s in (0, 104, 105, 320, 1e6)] == [0, 0, 1, 3, 20]


def test_finished_runs_are_not_timed_again(tmp_path, monkeypatch):
    "Of seed 0 kd and exp2 are left; the others have the time that they took"
    for name in ('teacher', 'hint', 'baseline'):
        make(tmp_path, name, 0, seconds=7)
    asked = []
    monkeypatch.setattr(timing, 'timed', lambda found, *_: asked.extend(found) or dict(kd=COSTS['kd']))
    found = measure_costs(tasks(tmp_path, 3), [], 1)
    assert [task.name for task in asked] == ['kd, seed 0', 'exp2, seed 0']
    assert found['teacher'].seconds == 7 and found['teacher'].kept > 0 and found['kd'] == COSTS['kd']


def test_a_deadline_stops_running_tasks_so_that_they_can_be_resumed(tmp_path, monkeypatch):
    stopped = []

    class Endless:
        ended = False

        def __init__(self, command, threads):
            self.recipe = command[5]

    monkeypatch.setattr(schedule, 'stop_processes', lambda running: stopped.extend(p.recipe for p in running))
    with pytest.raises(OutOfTime):
        run_tasks(tasks(tmp_path, 1), [], Jobs(2), 1, Console(quiet=True), Endless, deadline=time.monotonic() + 0.1)
    assert stopped == ['teacher', 'baseline']
