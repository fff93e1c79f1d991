"Runs with settings of training are planned, found and compared by them; runs without are those of before."

from conftest import make

from kdfast.analysis.differences import differences_from
from kdfast.analysis.matrix import find_stage_ones, question_runs
from kdfast.runs.find import changed_arguments, find_runs, resolve_run_name
from kdfast.runs.lookup import next_recipe, runs_by_seed
from kdfast.runs.recipes import find_recipe
from kdfast.study.tasks import plan


def test_a_plan_gives_them_to_every_run(tmp_path):
    given = dict(wd=0.01, class_weights='auto', precision='float32', lr=0.1)
    tasks = plan([(find_recipe('exp1'), given), *question_runs(dict(wd=0.01))], range(1), 'pets', tmp_path)
    names = [task.folder.recipe for task in tasks]
    shared = 'wd=0.01,precision=float32,class_weights=auto'
    assert names[:3] == [f'teacher,{shared}', f'hint,{shared}', f'exp1,lr=0.1,{shared}']
    assert all('wd=0.01' in name for name in names) and 'teacher,wd=0.01' in names
    assert 'hint,student=matched,matrix=True,wd=0.01' in names
    words = ['--wd', '0.01', '--precision', 'float32', '--class-weights', 'auto']
    assert tasks[0].command([])[-6:] == words and tasks[2].command([])[-8:] == ['--lr', '0.1', *words]


def test_runs_are_found_with_the_same_settings_only(tmp_path):
    for name in ('kd', 'kd,wd=0.01', 'kd,wd=0.01,class_weights=auto', 'hint', 'hint,wd=0.01'):
        make(tmp_path, name, 0, valid_accuracy=0.5)
    found = find_runs(tmp_path)
    for given in ({}, dict(wd=0.01), dict(wd=0.01, class_weights='auto')):
        (run,) = runs_by_seed(found, find_recipe('kd'), given).values()
        assert changed_arguments(run) == given
    assert runs_by_seed(found, find_recipe('kd'), dict(wd=0.02)) == {}
    assert [run.recipe for run in find_stage_ones(found, dict(wd=0.01)).values()] == ['hint,wd=0.01']
    assert [run.recipe for run in find_stage_ones(found, {}).values()] == ['hint']


def test_a_name_may_leave_settings_out_if_it_stays_unique(tmp_path):
    make(tmp_path, 'baseline,wd=0.01', 0, right=[1, 0] * 8)
    make(tmp_path, 'kd,wd=0.01', 0, right=[1, 1] * 8)
    assert differences_from(find_runs(tmp_path), 'baseline', 0.01)[0]['recipe'] == 'kd,wd=0.01'
    make(tmp_path, 'baseline,wd=0.02', 0, right=[1, 0] * 8)
    assert resolve_run_name(find_runs(tmp_path), 'baseline') is None
    assert resolve_run_name(find_runs(tmp_path), 'baseline,wd=0.02') == 'baseline,wd=0.02'


def test_the_next_recipe_has_the_same_settings(tmp_path):
    run = make(tmp_path, 'teacher,wd=0.01,precision=float32', 0, valid_accuracy=0.5)
    assert next_recipe(run, [run]) == ('baseline', dict(wd=0.01, precision='float32'))
    done = make(tmp_path, 'baseline,wd=0.01,precision=float32', 0, valid_accuracy=0.5)
    assert next_recipe(run, [run, done]) == ('kd', dict(wd=0.01, precision='float32'))
