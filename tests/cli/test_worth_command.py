"Commands plan and worth: options, budgets, what they print and what they leave."

import json
import re
import time
from types import SimpleNamespace

import pytest
from conftest import make

from kdfast.analysis.design import find_designs
from kdfast.cli.budget import looks_within, parse_budget
from kdfast.cli.options import StudyOptions
from kdfast.cli.planned import PlannedStudy
from kdfast.core.errors import KdfastError
from kdfast.runs.cost import RunCost
from kdfast.runs.recipes import find_recipe
from kdfast.stats.sequential import LOOKS, by_union_bound
from kdfast.study.schedule import OutOfTime


@pytest.mark.parametrize(
    'text,seconds', [('2h', 7200), ('45min', 2700), ('1h30min', 5400), ('1.5 h', 5400), ('90S', 90), ('1d', 86400)]
)
def test_a_budget_is_a_time_with_its_unit(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize('text', ['', '2', 'h', '2x', '0h', '-1h', '2h and', '1h,5min'])
def test_other_budgets_are_refused(text):
    with pytest.raises(KdfastError, match='^--budget .*: expected'):
        parse_budget(text)


@pytest.fixture
def fast(monkeypatch):
    "A seed takes 100 s, and runs are made at once, until the time is over after `fast.seeds` of them"

    class Fast:
        gains, seeds, rehearsals = dict(kd=0.05, exp2=0.0), 99, []

        def train(self, study, measured, deadline):
            def train(seeds, rehearsed=False):
                self.rehearsals.append(not (measured or rehearsed))
                for seed in range(min(seeds, self.seeds)):
                    base = 0.8 + 0.001 * (seed % 3)
                    for recipe, given in study.wanted:
                        name = recipe.folder_name(recipe.resolve(given))
                        gain = self.gains.get(recipe.name, 0.0) * (1 + 0.01 * (seed % 2))
                        facts = dict(recorded=dict(data_sha256=study.data.fingerprint), seconds=20)
                        make(study.training.runs, name, seed, 'tiny', valid_accuracy=base + gain, **facts)
                if seeds > self.seeds:
                    raise OutOfTime()
                return []

            return train

    found = Fast()
    found.rehearsals = []
    monkeypatch.setattr(
        PlannedStudy, 'costs', lambda self, n: {task.folder.recipe: RunCost(20.0) for task in self.tasks(1)}
    )
    monkeypatch.setattr(PlannedStudy, 'trainer', lambda *arguments: found.train(*arguments))
    return found


def worth(kdfast, images, runs, *more):
    return kdfast('worth', '--data', images, '--runs', runs, '--jobs', 1, *more)


def test_the_answer_is_two_sentences_with_numbers_and_the_command(kdfast, images, tmp_path, fast):
    done = worth(kdfast, images, tmp_path, '--budget', '1h', '--epochs', 5)
    assert done.status == 0, done.err
    words = ' '.join(done.out.split())
    assert words.startswith('Yes: kd raises the accuracy of thin on tiny by 4.') and '(4 seeds)' in words
    assert 'takes 1.0 times the time of the baseline' in words
    last = done.out.splitlines()[-1]
    assert last == f'next  kdfast run kd --epochs 5 --seed 2 --data {images} --runs {tmp_path} --threads 1'
    assert '20 seeds fit into the budget' in done.err and fast.rehearsals == [False]  # timing has rehearsed them
    (design,) = find_designs(tmp_path, 'tiny')
    assert design.looks == LOOKS and design.recipes == ('kd,epochs=5', 'exp2,epochs=5')


def test_a_budget_chooses_the_last_look_before_the_first_one_and_for_good(kdfast, images, tmp_path, fast, monkeypatch):
    "0.9 · 12 min are 6 seeds; the next call goes on with the same looks, whatever its budget"
    fast.gains, fast.seeds = dict(kd=0.01), 4
    done = worth(kdfast, images, tmp_path, '--budget', '12min', '--margin', 1)
    assert done.status == 0 and find_designs(tmp_path, 'tiny')[0].looks == (4, 5, 6)
    assert 'the budget of 12min is over' in done.err and done.out.lstrip().startswith('Not decided: ')
    assert 'The next look is at 5 seeds, about 60 s' in ' '.join(done.out.split())
    again = f'kdfast worth --budget 12min --margin 1 --data {images} --jobs 1 --runs {tmp_path}'
    assert done.out.splitlines()[-1] == f'next  {again}'
    fast.seeds = 99
    monkeypatch.setattr('kdfast.report.page.render_page', lambda folders, *_: f'<html> of {len(folders)} runs')
    done = worth(kdfast, images, tmp_path, '--budget', '9h', '--margin', 1, '--json', '--out', tmp_path / 'page.html')
    found = json.loads(done.out)
    assert done.status == 0 and found['looks'] == [4, 5, 6] and found['n'] == 6 and found['answer'] == 'undecided'
    assert found['next'] is None and found['needed']['images'] > 36 and len(found['sentences']) == 2
    assert fast.rehearsals == [False, False, True, False, False]  # nothing was timed in the second call
    assert (tmp_path / 'page.html').read_text() == '<html> of 18 runs'


def test_a_budget_without_a_verdict_is_refused_with_the_one_that_is_needed(kdfast, images, tmp_path, fast):
    done = worth(kdfast, images, tmp_path / 'runs', '--budget', '5min')
    assert done.status == 2 and not (tmp_path / 'runs').exists()
    assert 'is enough for 2 seeds, and the first look is at 3 seeds, which take about 5.0 min' in done.err
    assert 'expected --budget 6min or more' in done.err


@pytest.mark.parametrize('seed,used', [(5.0, 8.0), (17.0, 0.0), (16.7, 12.0), (100.0, 90.0)])
def test_the_times_in_a_refused_budget_add_up(tmp_path, seed, used):
    "Three seeds, what is spared and what preparing took are more than the budget, and within the one that is asked for"
    tasks = PlannedStudy(
        [(find_recipe('baseline'), {})], SimpleNamespace(name='x'), None, StudyOptions(runs=tmp_path), None
    ).tasks
    study = SimpleNamespace(tasks=tasks, jobs=1, costs=lambda n: {'baseline': RunCost(seed)})
    seconds = used + 2.9 * seed / 0.9
    with pytest.raises(KdfastError, match='expected --budget') as e:
        looks_within(study, time.monotonic() - used, seconds, 'SHORT')
    times = re.findall(r'(?:about|or|after) ([0-9.]+) (s|min)\b', e.value.message)
    first, spared, preparing = (float(number) * (60 if unit == 'min' else 1) for number, unit in times)
    asked = 60 * int(re.search('expected --budget ([0-9]+)min', e.value.message)[1])
    assert first == pytest.approx(3 * seed, abs=3) and spared == pytest.approx(first / 0.9, abs=4)
    assert asked - 64 < spared + preparing < asked + 4 and seconds < spared + preparing + 4


@pytest.mark.parametrize('margin,said', [(0.8, True), (12, False)])
def test_a_study_that_will_hardly_be_decided_is_announced(kdfast, images, tmp_path, fast, margin, said):
    "36 validation images; no error is known, so that the smallest assumed one counts"
    done = worth(kdfast, images, tmp_path, '--margin', margin)
    note = '20 seeds and 36 validation images will probably not decide a margin of 0.8 points even if only 5% of them'
    assert done.status == 0 and (note in done.err) == said and (' or --margin 4.1' in done.err) == said


def test_the_page_and_the_table_repeat_the_answer(kdfast, images, tmp_path, fast, monkeypatch):
    "Judged by the margin of the design, by the very command that is printed"
    fast.gains = {}
    monkeypatch.setattr('kdfast.report.page.analysis_sections', lambda _: [])  # the runs have no curves
    done = worth(kdfast, images, tmp_path, '--margin', 99)
    assert done.status == 0 and done.out.lstrip().startswith('No')
    (command,) = [line.removeprefix('page  ') for line in done.out.splitlines() if line.startswith('page  ')]
    assert kdfast(*command.split()[1:], '--out', tmp_path / 'r.html').status == 0
    assert (tmp_path / 'r.html').read_text().count('<td class="verdict alike">') == 2
    table = kdfast('compare', '--against', 'baseline', '--runs', tmp_path).out
    assert 'Alike' in table and '±99 points' in table and 'Undecided' not in table


def test_another_margin_for_the_same_study_is_refused(kdfast, images, tmp_path, fast):
    assert worth(kdfast, images, tmp_path).status == 0
    done = worth(kdfast, images, tmp_path, '--margin', 2)
    assert done.status == 2 and 'this study was declared on' in done.err


@pytest.mark.parametrize(
    'arguments,said',
    [
        (['worth', '--student', 'resnet18'], 'did you mean torchvision:resnet18 or timm:resnet18?'),
        (['worth', '--student', './nets.py'], 'add the function that builds the network, ./nets.py:FUNCTION'),
        (['worth', '--teacher', 'a.pth'], 'such as torchvision:resnet18@a.pth'),
        (['worth', '--out', 'no/where.html'], 'no is not a directory'),
        (['worth', '--metric', 'f1'], '--metric f1: the images of tiny have one label each'),
        (['plan', '--margin', '0'], '--margin 0.0: expected more than 0 points'),
        (['plan', '--error', '100'], '--error 100.0: expected percent'),
        (['plan', 'kd'], 'recipes are compared with the baseline, look by look: name baseline and at least one other'),
        (['plan', '--resplit'], 'No such option: --resplit'),
        (['worth', '--resplit'], 'No such option: --resplit'),
        (['plan', '--looks', '5,3'], 'looks 5,3: expected up to 50 numbers of seeds that increase'),
    ],
    ids=' '.join,
)
def test_wrong_options_are_refused_before_anything_is_made(kdfast, images, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = kdfast(*arguments, '--data', images)
    assert done.status == 2 and said in done.err and not list(tmp_path.iterdir())


def plan(kdfast, images, runs, *more):
    return kdfast('plan', 'baseline', 'kd', '--data', images, '--runs', runs, '--jobs', 1, *more)


def test_a_plan_measures_and_leaves_nothing(kdfast, images, tmp_path):
    done = plan(kdfast, images, tmp_path / 'runs', '--epochs', 2, '--teacher-epochs', 3, '--json', '--error', 20)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert list(found['costs']) == ['baseline,epochs=2', 'teacher,epochs=3', 'kd,epochs=2,teacher_epochs=3']
    seed = sum(cost['seconds'] for cost in found['costs'].values())
    assert 0 < seed < 600 and found['seconds'] == pytest.approx(20 * seed) and 0 < found['bytes'] < 10**9
    assert found['images'] == 36 and found['spreads'][0]['sd'] == pytest.approx((0.2 / 36) ** 0.5)
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
    'error,margin,expected',
    [
        (['--error', 1], 12, 'study baseline kd {} --until-decided --margin 12'),
        (['--error', 20], 0.8, 'plan baseline kd {} --margin 7.2 --error 20'),
        ([], 0.8, 'run baseline --data {data} --runs {runs} --threads 1'),
    ],
    ids=['decided', 'never', 'unknown'],
)
def test_the_last_line_of_a_plan_is_the_next_command(kdfast, images, tmp_path, fast, error, margin, expected):
    done = plan(kdfast, images, tmp_path, '--margin', margin, *error)
    assert done.status == 0, done.err
    flags = f'--data {images} --jobs 1 --runs {tmp_path}'
    assert done.out.splitlines()[-1] == f'next  kdfast {expected}'.format(flags, data=images, runs=tmp_path)


def test_an_answer_has_the_confidences_of_its_design(kdfast, images, tmp_path, fast, monkeypatch):
    "Those of a design that does not record them, too, for what a decision would need"
    fast.gains = dict(kd=0.01)
    assert worth(kdfast, images, tmp_path, '--budget', '12min', '--margin', 1).status == 0
    file = next((tmp_path / 'tiny' / 'designs').glob('*.json'))
    content = json.loads(file.read_text())
    del content['confidences']
    file.write_text(json.dumps(content))
    used = []
    monkeypatch.setattr('kdfast.cli.worth.answered', lambda study, design: used.append(design) or {})
    worth(kdfast, images, tmp_path, '--budget', '12min', '--margin', 1)
    assert used[0].design.confidences == by_union_bound((4, 5, 6), 2)


def test_a_plan_knows_a_declared_design(kdfast, images, tmp_path, fast):
    assert worth(kdfast, images, tmp_path, '--budget', '12min').status == 0
    done = kdfast(*plan_words(images, tmp_path))
    assert done.status == 0 and json.loads(done.out)['looks'] == [4, 5, 6] and json.loads(done.out)['declared']
    other = kdfast(*plan_words(images, tmp_path), '--looks', '2,3')
    assert json.loads(other.out)['looks'] == [2, 3] and not json.loads(other.out)['declared']
    assert '--looks is empty' in kdfast(*plan_words(images, tmp_path), '--looks', '').err


def plan_words(images, tmp_path):
    return 'plan', 'baseline', 'kd', 'exp2', '--data', images, '--runs', tmp_path, '--jobs', 1, '--json'
