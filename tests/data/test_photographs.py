"End to end on photographs: a timm student learns from a torchvision teacher and is exported."

import json

import numpy as np
import pytest
import torch
from conftest import equal, weights
from PIL import Image

from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream_paths import upstream_entries

SIZE = 48
LAYERS = 'stage2:blocks.1'  # both 6×6


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Images of several sizes and formats, larger than 72 pixels; the class is the side of the light"
    folder, random = tmp_path_factory.mktemp('photos') / 'lamps', np.random.default_rng(0)
    for split, n in dict(train=24, valid=8).items():
        for name in ('left', 'right'):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                height, width = random.integers(80, 120, 2)
                light = np.linspace(80, 0, width) if name == 'left' else np.linspace(0, 80, width)
                pixels = np.uint8(random.integers(0, 120, (height, width, 3)) + light[None, :, None])
                Image.fromarray(pixels).save(folder / split / name / f'{i}.{("jpg", "png", "webp")[i % 3]}')
    return folder


@pytest.fixture(scope='module')
def runs(photos, kdfast, tmp_path_factory):
    runs = tmp_path_factory.mktemp('runs')
    common = ['--data', photos, '--size', SIZE, '--runs', runs]
    done = kdfast('run', 'teacher', '--network', 'torchvision:shufflenet_v2_x0_5', '--epochs', 4, '--lr', 0.02, *common)
    assert done.status == 0 and f'next  kdfast run baseline --data {photos}' in done.out, (
        done.err
    )  # and not a teacher of other arguments
    (teacher,) = runs.glob('*/teacher,*/0')
    for recipe in ('exp1', 'exp2'):
        done = kdfast(
            'run',
            recipe,
            '--teacher',
            teacher,
            '--student',
            'timm:mobilenetv3_small_050',
            '--hint',
            LAYERS,
            '--epochs',
            3,
            '--lr',
            0.02,
            *common,
        )
        assert done.status == 0, done.err
    return {folder.recipe.split(',')[0]: folder for folder in map(RunDir, runs.glob('*/*/0'))}


def test_every_stage_is_finished(runs):
    assert runs.keys() == {'teacher', 'hint', 'exp1', 'exp2'}
    assert all(folder.finished and not folder.problems() for folder in runs.values())
    assert upstream_entries(runs['exp1'])[0]['sha256'] == runs['teacher'].files['weights.safetensors']
    hint = runs['hint'].result['hint']
    assert hint['hint_shape'] == [48, 6, 6] and hint['guided_shape'][1:] == [6, 6] and hint['matrix']


def test_front_is_frozen_in_exp1_and_trained_in_exp2(runs):
    front = {name for name in weights(runs['hint']) if name.startswith(('conv_stem', 'bn1', 'blocks.0', 'blocks.1'))}
    kept = {
        recipe: {name: t for name, t in weights(runs[recipe]).items() if name in front}
        for recipe in ('hint', 'exp1', 'exp2')
    }
    assert len(front) > 20 and equal(kept['hint'], kept['exp1']) and not equal(kept['hint'], kept['exp2'])
    assert not equal(weights(runs['hint']), weights(runs['exp1']))


def test_export_and_predict(runs, kdfast, photos, tmp_path):
    file = tmp_path / 'student.onnx'
    done = kdfast('export', runs['exp2'], '--to', file)
    assert done.status == 0 and '; 0 of ' in done.out and 'are classified differently than by the run' in done.out, (
        done.err
    )
    shown = sorted(photos.glob('valid/*/*'))  # in the order of the data set
    kept = runs['exp2'].arrays('predictions.npz')
    for what in (file, runs['exp2']):
        predictions = json.loads(kdfast('predict', what, *shown, '--json').out)
        assert [['left', 'right'].index(one['classes'][0]) for one in predictions] == kept['predicted'].tolist()
        assert np.allclose(
            [max(one['probabilities']) for one in predictions],
            torch.tensor(kept['logits']).float().softmax(1).max(1).values,
            atol=2e-3,
        )
