import pytest
from conftest import make

from kdfast.analysis.matrix import CONTROL, MATCHED, QUESTION, THIN, answer_question, question_runs
from kdfast.core.errors import KdfastError
from kdfast.report.matrix import answer_sentences, question_view
from kdfast.runs.recipes import find_recipe
from kdfast.stats.intervals import over_seeds

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
):
    for (recipe, student), values in accuracies.items():
        for seed, value in enumerate(values):
            options = {name: v for name, v in NAMES[student].items() if recipe != 'baseline' or name == 'student'}
            make(
                runs,
                folder_name(recipe, options | more),
                seed,
                valid_accuracy=value,
                valid_images=images,
                params=params[student != 'thin'],
                macs=9e6,
                teacher_sha256=None if recipe == 'baseline' else teacher(recipe, seed),
            )
    for seed in range(3):
        for student, options in NAMES.items():
            shape = [40, 8, 8] if student == 'thin' else list(guided)
            needs = options | {name: v for name, v in more.items() if name == 'optimizer'}
            bridged = student != 'matched' or shape != [84, 8, 8]
            hint = dict(layers='stage2:stage2', guided_shape=shape, hint_shape=[84, 8, 8], matrix=bridged)
            make(runs, folder_name('hint', needs), seed, hint=hint)


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
    make_all(tmp_path, more=dict(optimizer='muon'))
    facts = answer_question(tmp_path, 'pets', range(3), dict(optimizer='muon'), 0.008)
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
    half = (
        1.959964 * (10 - 100 * 0.1**2 + 4 * 2**2) ** 0.5 / 100
    )  # ten images by one, and four that could move it by two
    assert exp1['corrected']['high'] == pytest.approx(0.1 + half, rel=1e-4)


def test_the_view_answers(tmp_path):
    from rich.console import Console

    make_all(tmp_path)
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(question_view(found(tmp_path)))
    text = console.export_text()
    assert QUESTION in text and 'Experiment 1: undecided.' in text and 'exp1, control' in text and '…' in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_nothing_trained(tmp_path):
    with pytest.raises(KdfastError, match='kdfast matrix trains them'):
        found(tmp_path)


def test_what_the_question_needs_is_eight_recipes():
    assert len(question_runs({})) == 8 and question_runs(dict(epochs=3))[0][1] == dict(student='thin', epochs=3)


def test_a_broken_premise_gives_no_answer(tmp_path):
    make_all(tmp_path, params=(300000, 310000))
    said = [text.plain for text in answer_sentences(found(tmp_path))]
    assert said[0].startswith(
        'Experiment 1: no answer, a premise is broken (same number of parameters (±3 %))'
    ) and 'yes' not in ''.join(said)
