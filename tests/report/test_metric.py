"Balanced accuracy beside accuracy, and --metric"

import csv
import io
import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from conftest import make

from kdfast.analysis.design import Declared, declare
from kdfast.analysis.differences import differences_from
from kdfast.analysis.metrics import BALANCED, MAP, metric_of_kind
from kdfast.core.errors import KdfastError
from kdfast.runs.find import find_runs
from kdfast.stats.intervals import over_image_values, over_seeds
from kdfast.stats.labels import average_precisions, label_counts


def classified(runs, recipe, seed, common, rare, **more):
    "A run with this many of 90 and of 10 images correct; of an earlier version, without balanced accuracy"
    matrix = [[common, 90 - common], [10 - rare, rare]]
    folder = make(
        runs, recipe, seed, confusion=matrix, valid_accuracy=(common + rare) / 100, valid_images=100,
        train_accuracy=0.9,
        best_valid_accuracy=0.9, best_epoch=None,
        worst_pairs=None, **more,
    )  # fmt: skip
    predicted = np.repeat([0, 1, 0, 1], [common, 90 - common, 10 - rare, rare])
    np.savez(folder / 'predictions.npz', actual=np.repeat([0, 1], [90, 10]), predicted=predicted)
    folder.record = folder.run
    folder.finish({k: v for k, v in folder.result.items() if k not in ('valid_balanced_accuracy', 'class_accuracy')})
    return folder


@pytest.fixture
def runs(tmp_path):
    "kd is better in the small class, and worse in the large one"
    for seed, more in enumerate([0, 1, 0]):
        classified(tmp_path, 'baseline', seed, 80 + more, 2)
        classified(tmp_path, 'kd', seed, 79 + more, 8)
    return tmp_path


def test_runs_of_earlier_versions_have_a_balanced_accuracy(runs):
    folder = find_runs(runs)[0]
    assert BALANCED.value(folder) == pytest.approx((80 / 90 + 2 / 10) / 2)
    assert BALANCED.image_values(folder).mean() == pytest.approx(BALANCED.value(folder))
    assert BALANCED.step(folder) == pytest.approx(1 / 20)


def test_verdicts_judge_the_metric(runs):
    [plain] = differences_from(find_runs(runs), 'baseline', 0.008)
    [row] = differences_from(find_runs(runs), 'baseline', 0.008, 'balanced')
    expected = over_seeds([0.3 - 1 / 180] * 3, 1 / 20)
    assert (row['difference'], row['low'], row['high']) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (plain['metric'], row['metric']) == ('accuracy', 'balanced') and plain['difference'] == pytest.approx(0.05)
    assert row['verdict'] == 'better' and 'p_value' not in row


def test_one_seed_weighs_its_images(tmp_path):
    classified(tmp_path, 'baseline', 0, 80, 2), classified(tmp_path, 'kd', 0, 79, 8)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008, 'balanced')
    values = np.repeat([-100 / 180, 0, 100 / 20, 0], [1, 89, 6, 4])
    expected = over_image_values(values, 5)
    assert (row['of'], row['n'], row['low']) == ('images', 100, pytest.approx(expected.low))
    assert row['difference'] == pytest.approx(0.3 - 1 / 180)


def test_runs_on_other_images_are_no_pairs(tmp_path):
    classified(tmp_path, 'baseline', 0, 80, 2)
    make(tmp_path, 'kd', 0, right=[1, 0, 1], confusion=[[2, 1], [0, 0]])
    for metric in ('accuracy', 'balanced'):
        with pytest.raises(KdfastError, match='different images'):
            differences_from(find_runs(tmp_path), 'baseline', 0.008, metric)


def test_commands_show_it(runs, kdfast):
    table = kdfast('compare', '--runs', runs).out
    assert 'balanced accuracy' in table and 'accuracy of b' in table and '54.63 %' in table
    base, kd = json.loads(kdfast('compare', '--json', '--runs', runs).out)
    assert kd['class_accuracy']['b']['mean'] == pytest.approx(0.8) and base['class_accuracy']['b']['sd'] == 0
    against = ('compare', '--against', 'baseline', '--runs', runs, '--metric', 'balanced')
    assert 'the mean of the accuracies of the classes' in ' '.join(kdfast(*against).out.split())
    [line] = csv.DictReader(io.StringIO(kdfast(*against, '--csv').out))
    assert line['metric'] == 'balanced' and line['verdict'] == 'better'
    listed = json.loads(kdfast('ls', '--json', '--runs', runs).out)['runs'][0]
    assert listed['valid_balanced_accuracy'] == pytest.approx((80 / 90 + 0.2) / 2)
    wrong = kdfast(*against[:-1], 'f2')
    assert wrong.status == 2 and '--metric f2: expected accuracy, balanced, f1, map' in wrong.err
    assert 'needs --against' in kdfast('compare', '--metric', 'balanced', '--runs', runs).err
    file = runs / 'page.html'
    assert kdfast('report', '--runs', runs, '--out', file, '--metric', 'balanced').status == 0
    page = file.read_text()
    assert 'differences of balanced accuracy' in page and 'id="by-class">' in page


@pytest.mark.parametrize('baseline', ['baseline', 'baseline,epochs=3', 'sp'])
@pytest.mark.parametrize('data_sets', [['pets'], ['pets', 'zoo']])
@pytest.mark.parametrize(
    'options', [['--metric', 'balanced'], ['--metric', 'map'], ['--uncorrected'], ['--metric', 'f2']]
)
def test_the_command_that_is_given_instead_works(tmp_path, kdfast, options, data_sets, baseline):
    "Images of the first data set have one label each, those of the second several"
    for recipe in (baseline, 'kd'):
        for seed in (0, 1):
            make(tmp_path, recipe, seed, right=[1] * 8 + [0] * 2, confusion=[[8, 2], [0, 0]])
            if 'zoo' in data_sets:
                make(tmp_path, recipe, seed, 'zoo', valid_map=0.5 + seed / 9, label_counts=dict(a=[5, 1, 2, 2]))
    refused = kdfast('compare', *options, '--runs', tmp_path)
    assert refused.status == 2 and refused.err.count('\n') == 1, refused.err
    if options[-1] == 'f2' or (options[-1] == 'map' and data_sets == ['pets']):
        assert 'expected accuracy' in refused.err and 'compare' not in refused.err
        return
    assert 'it needs --against, such as: kdfast compare --against' in refused.err, refused.err
    done = kdfast(*shlex.split(refused.err.partition('such as: kdfast ')[2]))
    assert done.status == 0 and 'zoo' not in done.out or options[-1] == 'map' and 'zoo' in done.out, done.err
    assert options[-1] not in ('balanced', 'map') or options[-1] in refused.err


def test_a_command_is_given_before_any_run(tmp_path, kdfast):
    said = kdfast('compare', '--metric', 'map', '--runs', tmp_path).err
    assert 'such as: kdfast compare --against baseline --metric map' in said


SUGGESTED = dict(
    acc='accuracy',
    Accuracy='accuracy',
    balanced_acc='balanced',
    bal='balanced',
    F1='f1',
    f1_score='f1',
    mAP='map',
    valid_map='map',
    average_precision='map',
)
NOT_JUDGED = {
    'macro': 'F1 (macro)',
    'f1_macro': 'F1 (macro)',
    'micro-f1': 'F1 (micro)',
    'AUC': 'the area under the ROC curve',
    'roc_auc': 'the area under the ROC curve',
}


@pytest.mark.parametrize('name', SUGGESTED)
def test_a_similar_metric_is_suggested(name):
    said = f'--metric {name}: expected accuracy, balanced, f1, map; did you mean {SUGGESTED[name]}'
    with pytest.raises(KdfastError, match=said):
        metric_of_kind(False, name, 'pets')


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize('name', NOT_JUDGED)
def test_a_metric_that_is_not_judged_is_explained(name, several):
    with pytest.raises(KdfastError) as e:
        metric_of_kind(several, name, 'zoo')
    message, what = str(e.value), NOT_JUDGED[name]
    assert f'--metric {name}: {what}' in message and 'is not what verdicts judge: use' in message
    assert message.endswith('use f1 or map' if several else 'use accuracy or balanced')
    assert ('is in the tables' in message) == (several and 'ROC' not in what)


def test_a_design_says_what_is_judged(runs):
    "Declared with balanced accuracy: comparisons judge that, unless another metric is asked for"
    asked = Declared('baseline', ('kd',), (2, 3), 0.008, metric='balanced')
    declare(runs, 'pets', asked)
    with pytest.raises(KdfastError, match='--metric balanced'):
        declare(runs, 'pets', replace(asked, metric='accuracy'))
    [row] = differences_from(find_runs(runs), 'baseline', 0.008)
    assert row['metric'] == 'balanced' and row['look'] == 3
    [plain] = differences_from(find_runs(runs), 'baseline', 0.008, 'accuracy')
    assert plain['metric'] == 'accuracy' and 'look' not in plain


# Mean average precision: over seeds alone


def labeled(runs, recipe, seed, valid_map, counts=((1, 0, 1, 8), (3, 2, 0, 5), (0, 0, 0, 10))):
    "A run on images with several labels"
    names = {f'label {n}': list(of_label) for n, of_label in enumerate(counts)}
    folder = make(
        runs, recipe, seed, recorded=dict(images=dict(labels='several')), valid_map=valid_map, valid_images=10,
        label_counts=names, valid_f1=0.5, train_map=0.9,
        best_valid_map=valid_map, best_epoch=None, label_average_precision=dict.fromkeys(names, 0.5),
    )  # fmt: skip
    np.savez(folder / 'predictions.npz', actual=np.zeros((10, 3)), predicted=np.zeros((10, 3)), logits=np.zeros(1))
    folder.record = folder.run
    folder.finish(folder.result)
    return folder


def test_mean_average_precision_is_judged_over_seeds(tmp_path):
    for seed, more in enumerate([0.05, 0.06, 0.04]):
        labeled(tmp_path, 'baseline', seed, 0.5)
        labeled(tmp_path, 'kd', seed, 0.5 + more)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008, 'map')
    expected = over_seeds([0.05, 0.06, 0.04], ((1 + 1 / 2) / 2 + (1 + 1 / 2 + 1 / 3) / 3) / 2)
    assert (row['difference'], row['low'], row['high']) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (row['metric'], row['of'], row['n']) == ('map', 'seeds', 3)


def test_one_seed_has_no_interval_of_it(tmp_path, kdfast):
    labeled(tmp_path, 'baseline', 0, 0.5), labeled(tmp_path, 'kd', 0, 0.6)
    done = kdfast('compare', '--against', 'baseline', '--metric', 'map', '--runs', tmp_path)
    assert done.status == 0 and 'needs 2 seeds' in done.out, done.err
    assert 'mean average precision is no mean over images, so that one seed has no interval' in ' '.join(
        done.out.split()
    )
    file = tmp_path / 'page.html'
    assert kdfast('report', '--runs', tmp_path, '--out', file, '--metric', 'map').status == 0
    assert 'one seed has no interval' in file.read_text()


@pytest.mark.parametrize('seed', range(20))
def test_no_image_changes_it_by_more_than_the_step(tmp_path, seed):
    random = np.random.default_rng(seed)
    n, labels = int(random.integers(2, 12)), int(random.integers(1, 4))
    actual = (random.random((n, labels)) < random.random(labels)).astype(np.uint8)
    actual[0] = 1
    counts = label_counts(actual, actual)
    step = MAP.step(labeled(tmp_path, 'kd', seed, 0.5, counts.tolist()))
    scores = random.standard_normal((n, labels))
    before = np.mean(average_precisions(actual, scores))
    for image in range(n):
        for value in (-100, 100, 0):
            moved = scores.copy()
            moved[image] = value
            assert abs(np.mean(average_precisions(actual, moved)) - before) <= step + 1e-12
