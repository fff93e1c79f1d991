import json
import shutil
from dataclasses import replace

import pytest
from conftest import make
from rich.console import Console

from kdfast.analysis.design import declare
from kdfast.analysis.differences import differences_from
from kdfast.analysis.matrix import (
    CONTROL,
    MATCHED,
    QUESTION,
    THIN,
    answer_question,
    question_design,
    question_runs,
    questions_answered,
)
from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.report.matrix import answer_sentences, question_view
from kdfast.report.page import answer_sections
from kdfast.runs.find import find_runs
from kdfast.runs.recipes import find_recipe
from kdfast.stats.intervals import over_seeds
from kdfast.study import schedule
from kdfast.study.until_decided import run_until_decided

NAMES = {'thin': THIN, 'matched': MATCHED, 'control': CONTROL}
BASE = {
    ('baseline', 'thin'): [0.80, 0.81, 0.79],
    ('baseline', 'matched'): [0.801, 0.809, 0.790],
    ('exp1', 'thin'): [0.84, 0.85, 0.83],
    ('exp1', 'matched'): [0.83, 0.83, 0.82],
    ('exp1', 'control'): [0.83, 0.831, 0.819],
    ('exp2', 'thin'): [0.86, 0.85, 0.86],
    ('exp2', 'matched'): [0.86, 0.85, 0.87],
    ('exp2', 'control'): [0.80, 0.80, 0.80],
}


def make_all(
    runs,
    accuracies=BASE,
    teacher=lambda recipe, seed: f'teacher{seed}',
    guided=(84, 8, 8),
    params=(305866, 305577),
    more={},
    images=10**6,
    seeds=3,
    recorded={},
):
    for (recipe, student), values in accuracies.items():
        for seed, value in enumerate(values):
            options = {name: v for name, v in NAMES[student].items() if recipe != 'baseline' or name == 'student'}
            make(
                runs,
                folder_name(recipe, options | more),
                seed,
                recorded=recorded,
                valid_accuracy=value,
                valid_images=images,
                params=params[student != 'thin'],
                macs=9e6,
                teacher_sha256=None if recipe == 'baseline' else teacher(recipe, seed),
            )
    for seed in range(seeds):
        for student, options in NAMES.items():
            shape = [40, 8, 8] if student == 'thin' else list(guided)
            needs = options | {name: v for name, v in more.items() if name == 'optimizer'}
            bridged = student != 'matched' or shape != [84, 8, 8]
            hint = dict(layers='stage2:stage2', guided_shape=shape, hint_shape=[84, 8, 8], matrix=bridged)
            make(runs, folder_name('hint', needs), seed, recorded=recorded, hint=hint)


def folder_name(recipe, options):
    "With the options that the recipe has"
    found = find_recipe(recipe)
    return found.folder_name(found.resolve({o.name: options[o.name] for o in found.options if o.name in options}))


def found(runs):
    return answer_question(runs, 'pets', range(3), {}, 0.008)


def test_three_contrasts_by_hand(tmp_path):
    make_all(tmp_path)
    exp1, exp2 = found(tmp_path)['effects']
    expected = dict(raw=[0.01, 0.02, 0.01], corrected=[0.01 + 0.001, 0.02 - 0.001, 0.01], control=[0.0, 0.001, -0.001])
    for kind, values in expected.items():
        d = over_seeds(
            values, (2 if kind == 'corrected' else 1) / 10**6
        )  # differences of differences move by two images
        assert (exp1[kind]['difference'], exp1[kind]['low'], exp1[kind]['high']) == pytest.approx(
            (d.mean, d.low, d.high)
        ), kind
    assert exp1['control']['verdict'] == 'alike' and exp2['control']['verdict'] == 'worse'


def test_equal_accuracies_are_counts(tmp_path):
    "Three seeds of 100 images: 4.303·2/3 images; twice that for a difference of differences"
    make_all(tmp_path, {key: [0.8] * 3 for key in BASE}, images=100)
    for effect in found(tmp_path)['effects']:
        halves = [effect[kind]['high'] for kind in ('raw', 'control', 'corrected')]
        assert halves == pytest.approx([0.0286844, 0.0286844, 0.0573687], rel=1e-4)


def states(runs):
    return [p['state'] for p in found(runs)['premises']]


def test_premises_that_hold(tmp_path):
    make_all(tmp_path)
    assert states(tmp_path) == ['held'] * 4
    evidence = ' '.join(p['evidence'] for p in found(tmp_path)['premises'])
    for said in (
        'seed 2: teacher2',
        'hint: stage2 (84×8×8)',
        'guided layer of thin: 40×8×8',
        'thin: 306 k parameters',
        'thin − matched: +0.00 points',
    ):
        assert said in evidence


def test_stage_one_is_looked_for_as_the_experiments_needed_it(tmp_path):
    make_all(tmp_path, more=dict(optimizer='sgd'))
    facts = answer_question(tmp_path, 'pets', range(3), dict(optimizer='sgd'), 0.008)
    assert [p['state'] for p in facts['premises']] == ['held'] * 4
    with pytest.raises(KdfastError):
        found(tmp_path)


def test_another_teacher_breaks_the_first(tmp_path):
    make_all(tmp_path, teacher=lambda recipe, seed: f'{recipe if seed == 1 else "same"}{seed}')
    assert states(tmp_path) == ['broken', 'held', 'held', 'held']


def test_a_student_that_needs_the_matrix_after_all_breaks_the_second(tmp_path):
    make_all(tmp_path, guided=(48, 8, 8))
    assert states(tmp_path) == ['held', 'broken', 'held', 'held']


def test_a_larger_student_breaks_the_third(tmp_path):
    make_all(tmp_path, params=(300000, 310000))
    assert states(tmp_path) == ['held', 'held', 'broken', 'held']


@pytest.mark.parametrize('matched,state', [([0.82, 0.83, 0.81], 'broken'), ([0.80, 0.79, 0.82], 'undecided')])
def test_baselines_that_differ_break_the_fourth(tmp_path, matched, state):
    make_all(tmp_path, BASE | {('baseline', 'matched'): matched})
    assert states(tmp_path)[3] == state


def test_with_one_seed_the_images_answer(tmp_path):
    right = dict(thin=[1] * 60 + [0] * 40, matched=[1] * 50 + [0] * 50)
    make_all(tmp_path, {key: values[:1] for key, values in BASE.items()})
    for student, has in right.items():
        make(tmp_path, folder_name('exp1', NAMES[student]), 0, right=has, teacher_sha256='teacher0')
        make(tmp_path, folder_name('baseline', NAMES[student]), 0, right=[1] * 50 + [0] * 50, params=305866, macs=9e6)
    for recipe, student in (
        (r, s) for r in ('exp1', 'exp2') for s in NAMES if (r, s) not in (('exp1', 'thin'), ('exp1', 'matched'))
    ):
        make(tmp_path, folder_name(recipe, NAMES[student]), 0, right=right['thin'], teacher_sha256='teacher0')
    exp1 = answer_question(tmp_path, 'pets', range(1), {}, 0.008)['effects'][0]
    assert (
        exp1['corrected']['of'] == 'images'
        and exp1['corrected']['difference'] == pytest.approx(0.1)
        and exp1['raw']['n'] == 100
    )
    said = ' '.join(text.plain for text in answer_sentences(answer_question(tmp_path, 'pets', range(1), {}, 0.008)))
    assert 'verdicts are about these weights' in said and '5 %' not in said
    half = (
        1.959964 * (10 - 100 * 0.1**2 + 4 * 2**2) ** 0.5 / 100
    )  # ten images by one, and four that could move it by two
    assert exp1['corrected']['high'] == pytest.approx(0.1 + half, rel=1e-4)


def test_the_view_answers(tmp_path):
    make_all(tmp_path)
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(question_view(found(tmp_path)))
    text = console.export_text()
    assert QUESTION in text and 'Experiment 1: undecided.' in text and 'exp1, control' in text and '…' in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_primary_contrast_comes_first_and_is_stated(tmp_path):
    make_all(tmp_path)
    facts = found(tmp_path)
    said = [text.plain for text in answer_sentences(facts)]
    assert [sentence[:13] for sentence in said[:2]] == ['Experiment 2:', 'Experiment 1:']
    assert 'primary contrast is experiment 2' in said[2] and (facts['primary'], facts['design']) == ('exp2', None)


LOOKS = 2, 4


def declared(runs, **changes):
    return declare(runs, 'pets', replace(question_design({}, LOOKS, 0.008), **changes))


def test_a_declared_question_has_the_intervals_of_its_design(tmp_path):
    "Three seeds of looks at 2 and 4: every difference is that of the first two, with half of the 5 % of its own"
    make_all(tmp_path)
    declared(tmp_path)
    facts = found(tmp_path)
    row = facts['effects'][1]['corrected']
    d = over_seeds([0.001, -0.001], 2 / 10**6, 0.975)
    assert (row['low'], row['high'], row['n']) == (pytest.approx(d.low), pytest.approx(d.high), 2)
    assert (row['look'], row['next_look'], row['confidence']) == (2, 4, pytest.approx(0.975)) and row[
        'verdict'
    ] == 'undecided'
    assert answer_question(tmp_path, 'pets', range(1), {}, 0.008) == facts  # the design decides which seeds count
    assert facts['design']['contrasts'] == ('exp2, corrected', 'exp1, corrected') and facts['design']['looks'] == LOOKS
    assert 'n = 2 seeds' in facts['premises'][3]['evidence']
    said = ' '.join(text.plain for text in answer_sentences(facts))
    assert 'with looks at 2 and 4 seeds: over all of them, at most 5 % of studies' in said
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(question_view(facts))
    text = console.export_text()
    assert '97.5 % interval' in text and 'next look at 4 seeds' in ' '.join(text.split()) and '95 %' not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_declared_question_is_judged_by_its_margin(tmp_path):
    "Without another one that is asked for, which is told"
    make_all(tmp_path)
    declared(tmp_path, margin=0.96)
    said = 'the design declares 96 points, and its error rate holds for that alone'
    for given, margin in ((None, 0.96), (0.008, 0.008)):
        facts = answer_question(tmp_path, 'pets', range(3), {}, given)
        assert {facts['effects'][i]['raw']['margin'] for i in (0, 1)} == {facts['margin']} == {margin}
        console = Console(width=200, record=True, file=open('/dev/null', 'w'))
        console.print(question_view(facts))
        [[section], _] = answer_sections(find_runs(tmp_path), tmp_path, given, None)
        assert (said in console.export_text()) == (said in str(section['remarks'])) == (margin != 0.96)


def test_a_question_before_its_first_look(tmp_path):
    make_all(tmp_path, {key: values[:1] for key, values in BASE.items()})
    declared(tmp_path)
    facts = found(tmp_path)
    assert facts['effects'][0]['corrected']['verdict'] is None
    assert facts['premises'][3]['evidence'] == 'first look at 2 seeds'


def test_a_declared_question_is_never_changed_and_is_no_study_of_recipes(tmp_path):
    make_all(tmp_path)
    first = declared(tmp_path)
    assert first.finished_before == 8 * 3 and first.arguments == {} and declared(tmp_path) == first
    for changes in (dict(looks=(2, 3)), dict(margin=0.01), dict(metric='balanced')):
        with pytest.raises(KdfastError, match='was declared on .* with looks at 2 and 4 seeds'):
            declared(tmp_path, **changes)
    other = question_design(dict(epochs=3), (3,), 0.008)
    assert declare(tmp_path, 'pets', other).looks == (3,)  # other runs, another question
    assert not any('look' in row for row in differences_from(find_runs(tmp_path), 'baseline', 0.008))
    assert found(tmp_path)['design']['looks'] == LOOKS


def test_the_page_answers_with_the_design(tmp_path):
    make_all(tmp_path, more=dict(epochs=3))
    declare(tmp_path, 'pets', question_design(dict(epochs=3), LOOKS, 0.008))
    [answer] = questions_answered(find_runs(tmp_path), tmp_path, 0.008)
    assert answer['effects'][1]['corrected']['look'] == 2 and answer['design']['arguments'] == dict(epochs=3)


@pytest.mark.parametrize(
    'change,last,text',
    [
        ({}, 4, 'experiment 2 undecided'),
        ({('exp2', 'thin'): -0.5}, 2, 'experiment 2 worse'),
        ({('exp1', 'thin'): 0.1}, 4, 'experiment 1 better'),  # the secondary contrast does not stop it
        ({('baseline', 'thin'): 0.1}, 2, 'a premise is broken: baselines alike'),
    ],
)
def test_the_question_is_trained_until_its_primary_contrast_is_decided(tmp_path, change, last, text):
    "Accuracies of 2 and 4 seeds, one arm shifted"
    base = {key: [0.8, 0.802, 0.8, 0.802] for key in BASE} | {('exp2', 'matched'): [0.79, 0.805, 0.8, 0.81]}
    seen, told = [], []

    def train(n):
        seen.append(n)
        values = {key: [v + change.get(key, 0) for v in base[key]][:n] for key in base}
        make_all(tmp_path, values, seeds=n)
        return []

    design = declared(tmp_path)
    assert run_until_decided(design, tmp_path, 'pets', train, told.append) == []
    assert seen[-1] == last and text in told[-1], told
    assert all(line.startswith(f'look at {n} seeds: experiment 2') for n, line in zip(LOOKS, told))


def test_the_command_line_declares_trains_and_answers(kdfast, images, tmp_path, monkeypatch):
    "Runs are made instead of trained"
    runs = tmp_path / 'runs'
    shutil.copytree(images, tmp_path / 'pets')
    recorded = dict(data_sha256=load(str(images)).fingerprint)

    def run_tasks(tasks, *_):
        n = 1 + max(task.seed for task in tasks)
        make_all(runs, {key: [*values, values[0]][:n] for key, values in BASE.items()}, seeds=n, recorded=recorded)
        return []

    monkeypatch.setattr(schedule, 'rehearse_tasks', lambda *_: None)
    monkeypatch.setattr(schedule, 'run_tasks', run_tasks)
    asked = ('matrix', '--data', tmp_path / 'pets', '--runs', runs, '--jobs', 1, '--json')
    done = kdfast(*asked, '--until-decided', '--looks', '2,4')
    assert done.status == 0 and 'look at 4 seeds: experiment 2' in done.err, done.err
    facts = json.loads(done.out)
    assert facts['design']['looks'] == [2, 4] and facts['effects'][1]['corrected']['look'] == 4
    assert json.loads(kdfast(*asked, '--seeds', 1).out) == facts  # whatever is asked later
    refused = kdfast(*asked, '--until-decided', '--looks', '2,5')
    assert refused.status == 2 and 'with looks at 2 and 4 seeds' in refused.err


def test_nothing_trained(tmp_path):
    with pytest.raises(KdfastError, match='kdfast matrix trains them'):
        found(tmp_path)


def test_what_the_question_needs_is_eight_recipes():
    assert len(question_runs({})) == 8 and question_runs(dict(epochs=3))[0][1] == dict(student='thin', epochs=3)


def test_a_broken_premise_gives_no_answer(tmp_path):
    make_all(tmp_path, params=(300000, 310000))
    said = [text.plain for text in answer_sentences(found(tmp_path))]
    assert said[1].startswith(
        'Experiment 1: no answer, a premise is broken (same number of parameters (±3 %))'
    ) and 'yes' not in ''.join(said)
