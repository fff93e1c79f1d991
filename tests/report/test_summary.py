"The summary after a run, and the sentence above the table of several: the main result comes first."

import shlex
import shutil

import pytest
from conftest import make, seal
from rich.console import Console

from kdfast.analysis.aggregate import aggregate
from kdfast.report.headline import change_text, comparison_sentences, headline
from kdfast.report.summary import run_summary
from kdfast.runs.find import find_runs
from kdfast.runs.lookup import baseline_of
from kdfast.runs.upstream import record_upstream, teachers_of

IMAGES = dict(data_sha256='1')
TEACHER = dict(valid_accuracy=0.6135, valid_images=4000, params=1_328_642, epochs=16, seconds=180.0)
STUDENT = dict(valid_accuracy=0.5765, valid_images=4000, params=305_866, epochs=16, seconds=47.0)


def teach(student, *teachers, recipe='teacher'):
    "Record upstream runs of a finished run."
    student.record = student.run | dict(stands_on=student.run['stands_on'])
    for number, teacher in enumerate(teachers):
        (teacher / 'weights.safetensors').write_bytes(b'weights %d' % number + recipe.encode())
        seal(teacher)
        record_upstream(student, recipe, teacher)
    student.set_status('finished')
    return student


def summary(folder, width=80, **options):
    console = Console(width=width, record=True, file=open('/dev/null', 'w'))
    console.print(run_summary(folder, width=width, **options), crop=False)
    return console.export_text()


def lines(text):
    return [' '.join(line.split()) for line in text.splitlines()]


def sentence(folder):
    return headline(folder, teachers_of(folder))


def test_the_sentence_is_that_of_hand_computed_numbers(tmp_path):
    teacher = make(tmp_path, 'teacher', 0, recorded=IMAGES, **TEACHER)
    student = teach(make(tmp_path, 'exp1', 0, recorded=IMAGES, **STUDENT), teacher)
    assert sentence(student) == (
        'exp1 reaches 57.65 % on 4,000 validation images: 3.70 points below its teacher (61.35 %), with 4.3× fewer '
        'parameters.'
    )
    assert sentence(teacher) == 'teacher reaches 61.35 % on 4,000 validation images, with 1.33 M parameters.'
    shutil.rmtree(teacher.path)
    assert sentence(student) == 'exp1 reaches 57.65 % on 4,000 validation images, with 306 k parameters.'


@pytest.mark.parametrize(
    'accuracy,params,said',
    [
        (0.6135, 1_328_642, ': as accurate as its teacher (61.35 %), with as many parameters.'),
        (0.7, 1_300_000, ': 8.65 points above its teacher (61.35 %), with about as many parameters.'),
        (0.6, 2 * 1_328_642, ': 1.35 points below its teacher (61.35 %), with 2.0× more parameters.'),
    ],
)
def test_above_equal_and_larger(tmp_path, accuracy, params, said):
    teacher = make(tmp_path, 'teacher', 0, recorded=IMAGES, **TEACHER)
    own = STUDENT | dict(valid_accuracy=accuracy, params=params)
    assert sentence(teach(make(tmp_path, 'kd', 0, recorded=IMAGES, **own), teacher)).endswith(said)


def test_a_teacher_on_other_images_is_not_compared(tmp_path):
    teacher = make(tmp_path, 'teacher', 0, data='zoo', recorded=dict(data_sha256='2'), **TEACHER)
    student = teach(make(tmp_path, 'kd', 0, recorded=IMAGES, **STUDENT), teacher)
    assert sentence(student).endswith('4.3× fewer parameters; its teacher reaches 61.35 % on other images (zoo).')
    shown = lines(summary(student))
    assert 'validation accuracy 57.65 % 61.35 %' in shown and 'parameters 306 k 1.33 M 4.3× less' in shown


def test_several_teachers_have_a_column_each(tmp_path):
    teachers = [make(tmp_path, f'teacher,epochs={n}', 0, recorded=IMAGES, **TEACHER) for n in (3, 4)]
    student = teach(make(tmp_path, 'kd', 0, recorded=IMAGES, **STUDENT), *teachers)
    assert sentence(student).endswith('with 306 k parameters; its teachers reach 61.35 %, 61.35 %.')
    shown = lines(summary(student))
    assert 'kd teacher 1 teacher 2' in shown and 'parameters 306 k 1.33 M 1.33 M' in shown


def test_test_images_and_a_network_that_was_given(tmp_path):
    teacher = make(
        tmp_path, 'teacher', 0, **TEACHER | dict(test_accuracy=0.6, test_images=1000, epochs=0, valid_images=1)
    )
    assert sentence(teacher) == (
        'teacher reaches 61.35 % on 1 validation image, with 1.33 M parameters; on 1,000 test images it reaches '
        '60.00 %; it is used as it was given, without training.'
    )
    assert 'test accuracy 60.00 %' in lines(summary(teacher))


def test_without_a_classifier_the_loss_is_the_result(tmp_path):
    hint = make(tmp_path, 'hint', 0, fit_loss=0.0686, train_loss=0.1, epochs=1, params=305_866)
    assert sentence(hint) == 'hint trains no classifier, so it has no accuracy; its fit loss is 0.069 after 1 epoch.'
    pretrain = make(tmp_path, 'pretrain', 0, train_loss=0.1, epochs=6, params=305_866)
    assert sentence(pretrain).endswith('its training loss is 0.100 after 6 epochs.')
    assert 'losses training 0.100, fit 0.069' in lines(summary(hint))


def test_several_labels_are_summed_up_by_their_f1(tmp_path):
    counts = {f'label {n}': [n, 10 - n, 10 - n, 100] for n in range(11)}  # F1 is n / 10
    average = {name: None if name == 'label 10' else 0.5 for name in counts}
    folder = make(
        tmp_path,
        'kd',
        0,
        valid_map=0.912,
        best_valid_map=0.93,
        best_epoch=2,
        label_counts=counts,
        label_average_precision=average,
        **STUDENT | dict(valid_accuracy=None),
    )
    assert sentence(folder).startswith('kd reaches a mean average precision of 91.20 % on 4,000 validation images')
    shown = lines(summary(folder))
    assert 'best F1 label 9 90.00 %, label 8 80.00 %, label 7 70.00 %' in shown
    assert 'worst F1 label 0 0.00 %, label 1 10.00 %, label 2 20.00 % (of 10)' in shown
    assert 'best epoch 2, 93.00 %; other numbers: the last epoch' in shown


def test_without_any_label_there_is_no_score(tmp_path):
    no_score = dict(label_counts={'a': [0, 1, 0, 9]}, label_average_precision={'a': None}, epochs=1, params=10)
    teacher = make(tmp_path, 'teacher', 0, data='zoo', **no_score)
    assert sentence(teacher) == 'teacher has no mean average precision, as no validation image has a label.'
    assert 'parameters 10' in lines(summary(teacher, others=find_runs(tmp_path)))
    student = teach(make(tmp_path, 'kd', 0, recorded=IMAGES, **STUDENT), teacher)
    assert sentence(student).endswith('; its teacher reaches no score on other images (zoo).')


def test_the_figures_are_beside_those_of_the_teacher(tmp_path):
    more = dict(macs=40_000_000, latency=0.002, valid_balanced_accuracy=0.6135, train_loss=0.3)
    teacher = make(tmp_path, 'teacher', 0, recorded=IMAGES, **TEACHER, **more)
    hint = make(tmp_path, 'hint', 0, seconds=30.0)
    more |= dict(macs=10_000_000, latency=0.001, valid_balanced_accuracy=0.5, hard_loss=0.25)
    student = teach(make(tmp_path, 'exp1', 0, recorded=IMAGES, **STUDENT, **more), teacher)
    shown = lines(summary(teach(student, hint, recipe='hint')))
    for line in (
        'exp1 teacher change',
        'validation accuracy 57.65 % 61.35 % −3.70 points',
        'balanced accuracy 50.00 % 61.35 % −11.35 points',
        'multiply-adds 10.00 M 40.00 M 4.0× less',
        'latency (1 image) 1.00 ms 2.00 ms 2.0× less',
        'epochs 16 16',
        'training time 47 s 3.0 min and hint 30 s',
        'losses training 0.300, hard 0.250',
    ):
        assert line in shown, line
    assert not any('balanced' in line for line in lines(summary(teacher)))  # equals the accuracy


def test_classes_are_few_lines_however_many_there_are(tmp_path):
    def shown(n):
        accuracy = {f'class {i}': i / n for i in range(n)} | dict(nothing=None)
        folder = make(
            tmp_path,
            'baseline',
            n,
            class_accuracy=accuracy,
            worst_pairs=[['a', 'b', 9 - k] for k in range(6)],
            **STUDENT,
        )
        return lines(summary(folder))

    assert 'classes class 1 50.00 %, class 0 0.00 %' in shown(2)
    many = shown(1000)
    assert 'best classes class 999 99.90 %, class 998 99.80 %, class 997 99.70 %' in many
    assert 'worst classes class 0 0.00 %, class 1 0.10 %, class 2 0.20 % (of 1,000)' in many
    assert 'most confused a → b 9, a → b 8, a → b 7 (actual → predicted)' in many and len(many) < 25


@pytest.mark.parametrize('boxed', [False, True])
@pytest.mark.parametrize('width', [40, 60, 200])
def test_the_box_is_for_terminals_and_fits(tmp_path, boxed, width):
    name = 'kd,epochs=22,teacher=runs_cifar10-images_teacher_epochs=14_optimizer=muon_0'
    teacher = make(tmp_path, 'teacher,epochs=14', 0, recorded=IMAGES, **TEACHER)
    text = summary(teach(make(tmp_path, name, 0, recorded=IMAGES, **STUDENT), teacher), width, boxed=boxed)
    assert all(len(line) <= width for line in text.splitlines())
    assert ('│' in text) == ('╭' in text) == boxed and '57.65 %' in text
    cut = [line for line in text.splitlines() if '…' in line]
    assert width == 40 or not cut or boxed and width == 60 and [line[0] for line in cut] == ['╭']  # the title
    assert text.index('reaches') < text.index('parameters')


def test_the_baseline_of_the_same_conditions_is_named(tmp_path):
    student = make(tmp_path, 'kd,epochs=3', 0, recorded=IMAGES, **STUDENT)
    make(tmp_path, 'baseline,epochs=3', 0, recorded=IMAGES, **STUDENT | dict(valid_accuracy=0.55))
    text = ' '.join(summary(student, others=find_runs(tmp_path)).split())
    assert '+2.65 points against baseline,epochs=3 (55.00 %), with one seed.' in text
    assert 'kdfast compare --against baseline,epochs=3 tells whether that exceeds chance.' in text


@pytest.mark.parametrize('boxed', [False, True])
@pytest.mark.parametrize('width', [40, 60, 80, 120])
@pytest.mark.parametrize('length', [0, 1, 2, 3, 4, 5, 8, 30, 200])
def test_no_line_break_is_in_a_command(tmp_path, boxed, width, length):
    "Whose length is about that of a line, or beyond"
    student = make(tmp_path, 'kd', 0, recorded=IMAGES, **STUDENT)
    make(tmp_path, 'baseline', 0, recorded=IMAGES, **STUDENT | dict(valid_accuracy=0.55))
    flags = ['--runs', 'a b/' + 'r' * max(1, width - 55 + length)]
    command = shlex.join(['kdfast', 'compare', '--against', 'baseline', *flags])
    text = summary(student, width, others=find_runs(tmp_path), boxed=boxed, flags=flags)
    [line] = [line for line in text.splitlines() if command in line]
    assert line == command or len(line) <= width
    assert line == command or not boxed or line[0] == line[-1] == '│'
    assert 'whether that exceeds chance' in ' '.join(text.replace('│', ' ').split()).lower()


@pytest.mark.parametrize(
    'name,seed,images,params',
    [
        ('baseline', 0, '1', 305_866),  # other epochs
        ('baseline,epochs=3', 1, '1', 305_866),
        ('baseline,epochs=3', 0, '2', 305_866),
        ('baseline,epochs=3', 0, '1', 305_867),
        ('baseline,epochs=3,optimizer=sgd', 0, '1', 305_866),
        ('kd,epochs=3', 0, '1', 305_866),
    ],
)
def test_a_baseline_of_other_conditions_is_not(tmp_path, name, seed, images, params):
    student = make(tmp_path, 'exp1,epochs=3', 0, recorded=IMAGES, **STUDENT)
    make(tmp_path, name, seed, recorded=dict(data_sha256=images), **STUDENT | dict(params=params))
    assert baseline_of(student, find_runs(tmp_path)) is None


def test_the_simplest_of_several_baselines_is_named_and_never_the_run_itself(tmp_path):
    student = make(tmp_path, 'kd', 0, recorded=IMAGES, **STUDENT)
    plain, other = (make(tmp_path, name, 0, recorded=IMAGES, **STUDENT) for name in ('baseline', 'baseline,lr=0.4'))
    assert baseline_of(student, find_runs(tmp_path)).path == plain.path
    assert baseline_of(plain, [plain]) is None and baseline_of(other, find_runs(tmp_path)).path == plain.path


def test_ratios():
    assert [change_text(*pair) for pair in ((1, 4.34), (3, 1), (1, 1), (100, 101), (0, 1))] == [
        '4.3× less',
        '3.0× more',
        'equal',
        'about equal',
        '',
    ]


# Several runs


def test_the_table_begins_with_the_best_student(tmp_path, kdfast):
    for seed in (0, 1):
        for name, accuracy in dict(teacher=0.61, baseline=0.58, kd=0.59, exp2=0.6).items():
            make(tmp_path, name, seed, valid_accuracy=accuracy + seed / 50)
    make(tmp_path, 'hint', 0)
    assert comparison_sentences(aggregate(find_runs(tmp_path))) == (
        'exp2 has the highest validation accuracy of the students: 61.00 % (mean of 2 seeds); baseline 59.00 %, '
        'teacher 62.00 %.\nkdfast compare --against baseline tells which differences exceed chance.'
    )
    shown = lines(kdfast('compare', '--runs', tmp_path).out)
    assert shown[3].startswith('exp2 has the highest') and shown.index('pets') == 1
    [score] = [line for line in shown if '%' in line and 'accuracy' in line][1:2]
    assert score.startswith('validation accuracy')


def test_the_sentence_says_what_there_is(tmp_path):
    def said():
        return comparison_sentences(aggregate(find_runs(tmp_path)))

    make(tmp_path, 'hint', 0)
    assert said() == ''
    make(tmp_path, 'teacher', 0, valid_accuracy=0.61)
    assert said() == 'teacher has a validation accuracy of 61.00 % (one seed).'
    make(tmp_path, 'kd', 0, valid_accuracy=0.59)
    assert said() == 'kd has a validation accuracy of 59.00 % (one seed); teacher 61.00 %.'
