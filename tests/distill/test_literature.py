"Every loss of the literature is a recipe that trains."

import csv
import json

import pytest
from conftest import beside, equal, weights

from kdfast.runs.recipes import STUDY, recipe_names

LITERATURE = [name for name in recipe_names() if name not in (*STUDY, 'pretrain', 'finetune')]


def test_every_class_of_torchvision_and_timm_is_listed():
    assert set(LITERATURE) >= {
        'at',
        'crd',
        'dist',
        'dkd',
        'fitnets',
        'funmatch',
        'ls',
        'pkt',
        'reviewkd',
        'rkd',
        'sp',
        'vid',
    }


def trained(kdfast, name, images, runs, *more):
    "Two epochs, gentle enough for so few images; in float32, in which the last validation is the result"
    precise = ['--precision', 'float32', '--json']
    done = kdfast('run', name, '--epochs', 2, '--lr', 0.05, '--data', images, '--runs', runs, *precise, *more)
    assert done.status == 0, done.err
    return weights(next((runs / 'tiny').glob(f'{name},*')) / '0'), json.loads(done.out)


@pytest.fixture(scope='module')
def labels_alone(kdfast, images, tmp_path_factory):
    return trained(kdfast, 'baseline', images, tmp_path_factory.mktemp('labels'))[0]


@pytest.mark.parametrize('name', LITERATURE)
def test_it_trains_the_student_otherwise_than_labels_alone_and_keeps_the_student_alone(
    name, labels_alone, study, kdfast, images, tmp_path
):
    runs = beside(study, tmp_path, 'teacher')
    teacher = ['--teacher', runs / 'tiny' / 'teacher' / '0']
    student, result = trained(kdfast, name, images, runs, *teacher)
    assert student.keys() == labels_alone.keys() and not equal(student, labels_alone)
    kept = result['soft_loss'] if name == 'funmatch' else result['fit_loss']
    assert kept is not None and result['hard_loss'] is not None and result['teacher_sha256']
    last = list(csv.DictReader(next((tmp_path / 'tiny').glob(f'{name},*/0/metrics.csv')).open()))[-1]
    assert float(last['valid_hard']) == pytest.approx(
        result['valid_loss'], rel=1e-4
    )  # both of the last weights, on validation images


@pytest.fixture(scope='module')
def one_epoch(kdfast, images, tmp_path_factory):
    runs = tmp_path_factory.mktemp('one')
    done = kdfast('run', 'baseline', '--epochs', 1, '--data', images, '--runs', runs)
    assert done.status == 0, done.err
    return weights(runs / 'tiny' / 'baseline,epochs=1' / '0')


@pytest.mark.parametrize('name', [name for name in LITERATURE if name != 'funmatch'])
def test_without_weight_it_is_the_baseline_to_the_bit(name, study, one_epoch, kdfast, images, tmp_path):
    "The same student, images and order: runs of one seed are pairs, whatever the recipe builds beside"
    runs = beside(study, tmp_path, 'teacher')
    done = kdfast('run', name, '--weight', 0, '--epochs', 1, '--data', images, '--runs', runs)
    assert done.status == 0, done.err
    assert equal(weights(next((runs / 'tiny').glob(f'{name},*')) / '0'), one_epoch)
