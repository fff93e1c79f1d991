"Runs on images with several labels, from the command line: training, results, export, resuming, what is refused"

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import make, weights
from fastai.basics import Callback
from samples.labels import LABELS, draw_labels, indicators, write_text
from sklearn.metrics import average_precision_score, f1_score
from torch.nn.functional import binary_cross_entropy_with_logits

from kdfast.analysis.differences import differences_from
from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.runs.find import find_runs
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import over_image_values
from kdfast.training import checkpoints, execute

NAME = 'zoo,labels=several'


@pytest.fixture(scope='module')
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('labels') / 'zoo'
    rows = draw_labels(folder)
    write_text(folder, rows)
    return folder, rows


@pytest.fixture(scope='module')
def asked(zoo):
    return '--data', zoo[0], '--labels', 'several', '--augment', 'none'


@pytest.fixture(scope='module')
def runs(zoo, asked, kdfast, tmp_path_factory):
    "exp2 with all that it needs, baseline, kd"
    folder = tmp_path_factory.mktemp('several') / 'runs'
    for recipe in ('exp2', 'kd', 'baseline'):
        done = kdfast('run', recipe, *asked, '--epochs', 6, '--runs', folder)
        assert done.status == 0, done.err
    assert 'validation mAP' in done.out and 'F1 (macro)' in done.out and 'most confused' not in done.out
    return folder


def run_dirs(runs):
    return {folder.run['recipe']: folder for folder in find_runs(runs)}


def test_separable_labels_are_learned_and_scores_are_scikit_learns(runs, zoo):
    folders = run_dirs(runs)
    assert set(folders) == {'teacher', 'hint', 'exp2', 'kd', 'baseline'} and folders['kd'].data.startswith(NAME)
    actual = indicators(zoo[1], 'valid')
    for recipe in ('teacher', 'exp2', 'kd', 'baseline'):
        result, found = folders[recipe].result, folders[recipe].arrays('predictions.npz')
        logits = found['logits'].astype(float)
        assert (found['actual'] == actual).all() and (found['predicted'] == (logits > 0)).all()
        ap = average_precision_score(actual, logits, average=None)
        assert result['valid_map'] == pytest.approx(ap.mean(), abs=1e-6) and result['valid_map'] > 0.95
        assert list(result['label_average_precision'].values()) == pytest.approx(ap.tolist(), abs=1e-6)
        assert result['valid_f1_macro'] == pytest.approx(f1_score(actual, found['predicted'], average='macro'))
        assert result['valid_f1_micro'] == pytest.approx(f1_score(actual, found['predicted'], average='micro'))
        samples = f1_score(actual, found['predicted'], average='samples', zero_division=1)
        assert result['valid_f1'] == pytest.approx(samples)
        loss = binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(actual, dtype=torch.double))
        assert result['valid_loss'] == pytest.approx(float(loss), rel=1e-2)  # saved in half precision
        assert result['valid_accuracy'] is None and sum(result['label_counts']['bee']) == len(actual)
        rows = list(csv.DictReader(open(folders[recipe] / 'metrics.csv')))
        epochs_map = float(rows[-1]['valid_map'])  # of bfloat16, where training is
        assert epochs_map == pytest.approx(result['valid_map'], abs=0.01) and 'valid_accuracy' not in rows[0]
        assert folders[recipe].run['images']['labels'] == 'several' and not folders[recipe].problems()
    assert folders['hint'].result['valid_accuracy'] is None and 'label_counts' not in folders['hint'].result


def test_the_losses_are_those_of_independent_labels(runs):
    "Hard: binary cross-entropy; soft: T² · KL of the sigmoids, which `tests/distill/test_tasks.py` computes by hand"
    [first, *_] = csv.DictReader(open(run_dirs(runs)['kd'] / 'steps.csv'))
    total, soft, hard = (float(first[name]) for name in ('total', 'soft', 'hard'))
    assert total == pytest.approx(0.1 * hard + 0.9 * soft, rel=1e-5) and 0 < hard < 2
    assert 'accuracy' not in first


def test_tables_page_and_json(runs, kdfast, tmp_path):
    table = kdfast('compare', '--runs', runs).out
    assert 'validation mAP' in table and 'F1 (micro)' in table and 'accuracy' not in table
    rows = json.loads(kdfast('compare', '--json', '--runs', runs).out)
    assert all(row['valid_map'] for row in rows if row['recipe'] != 'hint')
    listed = json.loads(kdfast('ls', '--json', '--runs', runs).out)['runs']
    assert all(
        {'valid_map', 'valid_f1_macro', 'valid_f1_micro'} <= run.keys() for run in listed if 'hint' not in run['path']
    )
    assert 'mAP' in kdfast('ls', '--runs', runs).out
    against = json.loads(kdfast('compare', '--against', 'baseline', '--json', '--runs', runs).out)
    assert {row['metric'] for row in against} == {'f1'} and {row['of'] for row in against} == {'images'}
    text = ' '.join(kdfast('compare', '--against', 'baseline', '--runs', runs).out.split())
    assert 'the mean over the images of the F1 of their labels' in text
    for metric in ('accuracy', 'balanced'):
        wrong = kdfast('compare', '--against', 'baseline', '--metric', metric, '--runs', runs)
        assert wrong.status == 2 and 'have several labels each, expected f1' in wrong.err
    file = tmp_path / 'page.html'
    done = kdfast('report', '--runs', runs, '--out', file)
    page = file.read_text()
    assert done.status == 0, done.err
    assert '<h2 id="labels">Labels</h2>' in page and 'mean average precision, validation images, by epoch' in page
    assert 'Final validation mean average precision' in page and 'confusion matrix, ' not in page
    shown = kdfast('confusion', 'kd', '--against', 'baseline', '--runs', runs)
    assert 'true +' in shown.out and 'has the higher F1 in' in shown.out, shown.err
    found = json.loads(kdfast('confusion', 'kd', '--json', '--runs', runs).out)
    assert found['label_counts'] == run_dirs(runs)['kd'].result['label_counts']
    assert kdfast('check', runs).status == 0


def test_verdicts_pair_images(runs):
    rows = {row['recipe'].split(',')[0]: row for row in differences_from(find_runs(runs), 'baseline', 0.008)}
    folders = run_dirs(runs)
    values = []
    for recipe in ('teacher', 'baseline'):
        found = folders[recipe].arrays('predictions.npz')
        both = (found['actual'] & found['predicted']).sum(1)
        n = found['actual'].sum(1) + found['predicted'].sum(1)
        values.append(np.where(n, 2 * both / np.maximum(n, 1), 1))
    expected = over_image_values(values[0] - values[1], 1.0, 1 - 0.05 / len(rows))
    assert (rows['teacher']['low'], rows['teacher']['high']) == pytest.approx((expected.low, expected.high))


def test_runs_of_both_kinds_are_not_compared(runs, kdfast, tmp_path):
    shutil.copytree(runs, tmp_path / 'runs')
    name = next(iter(find_runs(runs))).data
    make(tmp_path / 'runs', 'at', 0, data=name, right=[True, False])
    for command in (('compare',), ('compare', '--against', 'baseline'), ('report', '--out', tmp_path / 'p.html')):
        done = kdfast(*command, '--runs', tmp_path / 'runs')
        assert done.status == 2 and 'their numbers mean different things' in ' '.join(done.err.split())


@pytest.mark.parametrize('suffix', ['.safetensors', '.onnx'])
def test_exported_models_give_sigmoids(runs, zoo, kdfast, tmp_path, suffix):
    file = tmp_path / f'kd{suffix}'
    done = kdfast('export', run_dirs(runs)['kd'].path, '--to', file)
    assert done.status == 0 and '0 of 32 validation images' in done.out, done.err
    names = [name for name, split, _ in zoo[1] if split == 'valid'][:8]
    found = json.loads(kdfast('predict', file, *(zoo[0] / name for name in names), '--json').out)
    kept = run_dirs(runs)['kd'].arrays('predictions.npz')
    for row, logits, predicted in zip(found, kept['logits'], kept['predicted']):
        expected = dict(zip(LABELS, torch.tensor(logits.astype(np.float32)).sigmoid().tolist()))
        assert dict(zip(row['classes'], row['probabilities'])) == pytest.approx(expected, abs=2e-3)
        assert set(row['labels']) == {label for label, present in zip(LABELS, predicted) if present}
    assert kdfast('predict', file, *(zoo[0] / name for name in names)).status == 0


class Interrupt(Callback):
    order = 90

    def after_batch(self):
        if self.training and (self.epoch, self.iter) == (1, 3):
            raise KeyboardInterrupt


def test_a_killed_run_ends_equal(runs, zoo, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, 'EVERY', 0)
    data = load(str(zoo[0]), labels='several', augment='none')
    for recipe in ('teacher',):
        shutil.copytree(run_dirs(runs)[recipe].path.parent, tmp_path / data.name / recipe)
    kd = find_recipe('kd')
    with pytest.raises(KeyboardInterrupt):
        execute.train(kd, data, 0, dict(epochs=6), tmp_path, [lambda folder: Interrupt()])
    folder = execute.train(kd, data, 0, dict(epochs=6), tmp_path)
    whole = run_dirs(runs)['kd']
    a, b = weights(folder), weights(whole)
    assert all((a[name] == b[name]).all() for name in a)
    rows, others = (list(csv.DictReader(open(f / 'metrics.csv'))) for f in (folder, whole))
    assert [{**row, 'seconds': 0} for row in rows] == [{**row, 'seconds': 0} for row in others]


@pytest.mark.parametrize('recipe', ['dkd', 'dist', 'ls', 'crd'])
def test_losses_of_one_class_are_refused_before_training(runs, asked, kdfast, tmp_path, recipe):
    done = kdfast('run', recipe, *asked, '--epochs', 1, '--runs', tmp_path)
    assert done.status == 2 and not list(tmp_path.glob('*/*/*/metrics.csv'))
    said = ' '.join(done.err.split())
    assert ('several labels each' if recipe == 'crd' else 'are labels: use Distill') in said


@pytest.mark.parametrize('recipe', ['at', 'fitnets', 'funmatch', 'pkt', 'reviewkd', 'rkd', 'sp', 'vid', 'exp1'])
def test_all_other_recipes_train(runs, asked, kdfast, tmp_path, recipe):
    for name in ('teacher', 'hint'):
        for folder in (f for n, f in run_dirs(runs).items() if n == name):
            shutil.copytree(folder.path.parent, tmp_path / folder.data / folder.recipe)
    done = kdfast('run', recipe, *asked, '--epochs', 1, '--runs', tmp_path)
    assert done.status == 0, done.err


def test_a_recipe_with_a_loss_of_one_class_is_refused(asked, kdfast, tmp_path):
    file = tmp_path / 'smooth.py'
    file.write_text(
        '"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs: int = 1):\n'
        '    learn = run.learner(run.build(thin), loss_func=LabelSmoothingCrossEntropyFlat())\n'
        '    learn.fit_one_cycle(epochs, 0.1)\n    return learn\n'
    )
    done = kdfast('run', file, *asked, '--runs', tmp_path / 'runs')
    assert done.status == 2 and 'expects one class' in done.err and not (tmp_path / 'runs').exists()


def test_a_teacher_of_the_other_kind_is_refused(runs, asked, study, images, kdfast, tmp_path):
    done = kdfast('run', 'kd', *asked, '--teacher', study / 'teacher' / '0', '--runs', tmp_path)
    assert done.status == 2 and 'was trained on images with one label' in ' '.join(done.err.split())
    teacher = run_dirs(runs)['teacher'].path
    done = kdfast('run', 'kd', '--data', images, '--teacher', teacher, '--runs', tmp_path)
    assert done.status == 2 and 'was trained on images with several labels' in ' '.join(done.err.split())


def test_a_teacher_run_of_the_same_kind_is_used(runs, asked, kdfast, tmp_path):
    done = kdfast('run', 'kd', *asked, '--epochs', 1, '--teacher', run_dirs(runs)['teacher'].path, '--runs', tmp_path)
    assert done.status == 0, done.err


def test_a_study_judges_f1(zoo, asked, kdfast, runs, tmp_path):
    done = kdfast('study', 'baseline', 'kd', *asked, '--seeds', 1, '--metric', 'accuracy', '--runs', tmp_path)
    assert done.status == 2 and 'expected f1' in done.err and not list(tmp_path.iterdir())


def test_a_study_that_judges_map_needs_two_seeds(asked, kdfast, tmp_path):
    done = kdfast('study', 'baseline', 'kd', *asked, '--seeds', 1, '--metric', 'map', '--runs', tmp_path)
    assert done.status == 2 and 'needs at least 2 seeds' in done.err and not list(tmp_path.iterdir())
    done = kdfast('study', 'baseline', 'kd', *asked, '--epochs', 1, '--teacher-epochs', 1, '--seeds', 2,
                  '--metric', 'map', '--runs', tmp_path)  # fmt: skip
    assert done.status == 0 and 'mean average precision' in done.out, done.err
    rows = json.loads(kdfast('compare', '--against', 'baseline', '--metric', 'map', '--json', '--runs', tmp_path).out)
    [row] = [row for row in rows if row['recipe'].startswith('kd')]
    values = {name: [] for name in ('kd', 'baseline', 'teacher')}
    for folder in find_runs(tmp_path):
        values[folder.run['recipe']].append(folder.result['valid_map'])
    difference = sum(values['kd']) / 2 - sum(values['baseline']) / 2
    assert (row['of'], row['n']) == ('seeds', 2) and row['difference'] == pytest.approx(difference)


def test_a_run_directory_of_one_label_is_never_taken_for_several(study):
    with pytest.raises(KdfastError, match='have one label each, expected accuracy or balanced'):
        differences_from(find_runs(study.parent), 'baseline', 0.008, 'f1')
    assert RunDir(study / 'kd' / '0').result['valid_accuracy'] is not None
