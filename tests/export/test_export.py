"Out of the door: an exported file says what its run said, of the run's images and of any other."

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CLASSES
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.export import export, predict
from kdfast.models.saved import load_network
from kdfast.runs.run_dir import RunDir
from kdfast.training.devices import threads_used


@pytest.fixture(scope='module')
def onnx(study, kdfast, tmp_path_factory):
    "exp2, exported by the command line; what it said"
    file = tmp_path_factory.mktemp('out') / 'exp2.onnx'
    done = kdfast('export', study / 'exp2' / '0', '--to', file)
    assert done.status == 0, done.err
    return file, done.out


def test_an_onnx_file_takes_plain_pixels_and_gives_the_runs_classes(study, data, onnx):
    "With nothing but onnxruntime: no mean, no spread, no class names from elsewhere; any number of images"
    file, said = onnx
    assert '0 of 36 validation images are classified differently' in said
    session = onnxruntime.InferenceSession(file)
    pixels = np.stack([np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in data.valid[0]])
    (probabilities,) = session.run(None, dict(images=pixels))
    (alone,) = session.run(None, dict(images=pixels[:1]))
    kept = RunDir(study / 'exp2' / '0').arrays('predictions.npz')
    assert (probabilities.argmax(1) == kept['predicted']).all()
    assert np.allclose(
        probabilities, torch.tensor(kept['logits']).float().softmax(1), atol=2e-3
    )  # kept in half precision
    assert np.allclose(probabilities[:1], alone, atol=1e-6)
    assert json.loads(session.get_modelmeta().custom_metadata_map['kdfast'])['classes'] == CLASSES


def test_a_file_that_says_something_else_is_refused(study, data, onnx):
    network, kept = (
        load_network(RunDir(study / 'exp2' / '0')),
        RunDir(study / 'exp2' / '0').arrays('predictions.npz')['predicted'],
    )
    assert export.check(onnx[0], network, data, kept)[0] == 0
    with pytest.raises(KdfastError, match='another class than the run for 1 of 36 validation images'):
        export.check(onnx[0], network, data, np.where(np.arange(36) == 7, (kept + 1) % 3, kept))
    other = load_network(RunDir(study / 'baseline' / '0'))
    assert export.check(onnx[0], other, data, kept)[1] > 0.01  # the difference that is printed


def test_what_is_not_the_run_is_not_left_behind(study, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export, 'load_network', lambda folder, load=load_network: load(RunDir(study / 'baseline' / '0'))
    )
    for name in ('x.onnx', 'x.safetensors'):
        if name == 'x.safetensors':
            monkeypatch.setattr(
                export,
                'to_safetensors',
                lambda folder, file: file.write_bytes((study / 'baseline' / '0' / 'weights.safetensors').read_bytes()),
            )
        with pytest.raises(KdfastError, match='another class than the run'):
            export.export(RunDir(study / 'exp2' / '0'), tmp_path / name)
    assert not list(tmp_path.iterdir())


class Stopped(BaseException):
    "As Ctrl-C"


@pytest.mark.parametrize('name', ['x.onnx', 'x.safetensors'])
@pytest.mark.parametrize('error', [KdfastError('other predictions'), Stopped(), OSError('full')])
@pytest.mark.parametrize('at', ['check', 'replace'])
def test_an_export_that_fails_at_any_moment_leaves_what_was_there(study, tmp_path, monkeypatch, name, error, at):
    def fail(*_):
        raise error

    (tmp_path / name).write_text('an earlier export'), (tmp_path / 'source').mkdir()
    monkeypatch.setattr(export, at, fail)
    with pytest.raises(type(error)):
        export.export(RunDir(study / 'exp2' / '0'), tmp_path / name)
    assert (tmp_path / name).read_text() == 'an earlier export'
    assert sorted(file.name for file in tmp_path.rglob('*')) == ['source', name]


def test_what_builds_the_network_goes_along_and_overwrites_nobodys_file(kdfast, images, tmp_path, monkeypatch):
    mine, there = tmp_path / 'mine.py', tmp_path / 'there'
    layers = 'nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n)'
    source = f'from torch import nn\ndef tiny(n): return nn.Sequential({layers})\n'
    mine.write_text(source), there.mkdir()
    assert (
        kdfast(
            'run', 'baseline', '--student', f'{mine}:tiny', '--epochs', 1, '--data', images, '--runs', tmp_path / 'runs'
        ).status
        == 0
    )
    (run,) = tmp_path.glob('runs/*/*/0')
    assert (
        kdfast('export', run, '--to', there / 'x.safetensors').status == 0
        and (there / 'source' / 'mine.py').read_text() == source
    )
    assert kdfast('predict', there / 'x.safetensors', images / 'valid' / 'bee' / '000.png').status == 0
    with monkeypatch.context() as patched:
        patched.setattr(export, 'check', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            (tmp_path / 'other').mkdir(), export.export(RunDir(run), tmp_path / 'other' / 'x.safetensors')
    assert not list((tmp_path / 'other').iterdir())  # no sources either
    (there / 'source' / 'mine.py').write_text(source + '# worked on since\n')
    done = kdfast('export', run, '--to', there / 'y.safetensors')
    assert done.status == 2 and 'is not the file that the network was trained with' in done.err
    assert (there / 'source' / 'mine.py').read_text().endswith('since\n') and not (there / 'y.safetensors').exists()


@pytest.mark.parametrize(
    'arguments,said',
    [
        (['--to', 'x.pt'], 'ends in .onnx or .safetensors'),
        (['--to', 'nowhere/x.onnx'], 'nowhere is not a directory'),
        (['--to', 'x.onnx', '--images', 'moved'], 'no data at moved'),
        (['--to', 'x.onnx', '--images', 'digits'], 'these are not the images of'),
    ],
)
def test_wrong_exports(study, kdfast, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = kdfast('export', study / 'exp2' / '0', *arguments)
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1 and not list(tmp_path.iterdir())


def test_a_run_that_classifies_nothing_is_not_exported(study, kdfast, tmp_path):
    done = kdfast('export', study / 'hint' / '0', '--to', tmp_path / 'x.onnx')
    assert done.status == 2 and 'classifies nothing' in done.err and not list(tmp_path.iterdir())


def test_the_same_is_predicted_by_a_run_and_by_its_files(study, kdfast, images, onnx, tmp_path):
    file = tmp_path / 'exp2.safetensors'
    assert kdfast('export', study / 'exp2' / '0', '--to', file).status == 0
    shown = sorted((images / 'valid').glob('*/*.png'))
    answers = [
        json.loads(kdfast('predict', what, *shown, '--json').out) for what in (study / 'exp2' / '0', file, onnx[0])
    ]
    assert [[said['classes'] for said in answer] for answer in answers].count(
        [said['classes'] for said in answers[0]]
    ) == 3
    assert [CLASSES.index(said['classes'][0]) for said in answers[0]] == RunDir(study / 'exp2' / '0').arrays(
        'predictions.npz'
    )['predicted'].tolist()
    for said in answers[0]:
        assert abs(sum(said['probabilities']) - 1) < 1e-5 and said['probabilities'] == sorted(
            said['probabilities'], reverse=True
        )


def test_people_are_shown_the_likeliest_classes(study, kdfast, images):
    done = kdfast('predict', study / 'exp2' / '0', images / 'valid' / 'bee' / '000.png')
    assert (
        done.status == 0
        and 'bee/000.png' in done.out
        and all(f'{name} ' in done.out for name in CLASSES)
        and done.out.count('%') == 3
        and done.out.count('\n') == 1
    )


def test_an_image_of_another_size_is_made_as_the_validation_images_were(study, tmp_path):
    "Eight times as large and as wide again: scaled, and the middle taken"
    _, facts = predict.classifier(study / 'exp2' / '0' / 'weights.safetensors')
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 32:96] = np.repeat(np.repeat(np.arange(192, dtype=np.uint8).reshape(8, 8, 3), 8, 0), 8, 1)
    Image.fromarray(image).save(tmp_path / 'large.png')
    fitted = predict.load_image(tmp_path / 'large.png', facts)
    assert fitted.shape == (8, 8, 3)
    assert np.abs(fitted.astype(int)[1:-1, 1:-1] - np.arange(192).reshape(8, 8, 3)[1:-1, 1:-1]).max() <= 8


def test_a_folder_is_all_images_in_it_and_below(study, kdfast, images, tmp_path, monkeypatch):
    "By name, without hidden and other files, as if each was given; more than a batch"
    monkeypatch.setattr(predict, 'BATCH', 5)
    shutil.copytree(images / 'valid', tmp_path / 'new' / 'deep')
    some = sorted((tmp_path / 'new' / 'deep').glob('*/*'))
    some[0].rename(tmp_path / 'new' / '.hidden.png'), some[1].rename(tmp_path / 'new' / 'z.PNG')
    (tmp_path / 'new' / 'notes.txt').write_text('of a day')
    files = [*some[2:], tmp_path / 'new' / 'z.PNG']
    folder, alone = (kdfast('predict', study / 'exp2' / '0', *given) for given in ([tmp_path / 'new'], files))
    assert folder.status == 0 and folder.out == alone.out and folder.out.count('\n') == len(files), folder.err


def test_files_that_cannot_be_read_take_no_prediction_of_others(study, kdfast, images, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, 'BATCH', 2)
    good = sorted((images / 'valid' / 'bee').glob('*'))[:3]
    for name, file in zip('aceg', good):
        shutil.copy(file, tmp_path / f'{name}.png')
    for name in 'bdf':
        (tmp_path / f'{name}.png').write_bytes(good[0].read_bytes()[:60])
    alone = kdfast('predict', study / 'exp2' / '0', *(tmp_path / f'{name}.png' for name in 'ace'))
    done = kdfast('predict', study / 'exp2' / '0', tmp_path)
    assert alone.status == 0 and done.status == 2 and done.out == alone.out
    assert '3 of 6 images cannot be read' in done.err and all(f'{name}.png: ' in done.err for name in 'bdf')
    found = json.loads(kdfast('predict', study / 'exp2' / '0', tmp_path, '--json').out)
    assert ['problem' in one for one in found] == [False, True] * 3


@pytest.mark.parametrize('shape', [(48, 64), (64, 49), (37, 37), (101, 60)])
def test_the_preprocessing_that_the_guide_shows_is_that_of_validation_images(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'x.png')
    guide = Path(__file__).parents[2].joinpath('docs', 'photographs.md').read_text()
    code = re.search(r"image = Image.open\('.*?'\)(.*?)\npixels = ", guide, re.S)[1]
    names = dict(Image=Image, image=Image.open(tmp_path / 'x.png'))
    exec(f'image = image{code}', names)
    facts = dict(size=[32, 32], presized=37)
    assert np.array_equal(np.asarray(names['image']), predict.load_image(tmp_path / 'x.png', facts))


@pytest.mark.parametrize(
    'what,said', [('text', 'not an image'), ('folder', 'found no images'), ('nothing', 'no image')]
)
def test_what_is_no_image(study, kdfast, tmp_path, what, said):
    (tmp_path / 'text').write_text('a cat'), (tmp_path / 'folder').mkdir()
    done = kdfast('predict', study / 'exp2' / '0', tmp_path / what)
    assert done.status == 2 and said in done.err and what in done.err


@pytest.mark.parametrize(
    'name,content,said',
    [
        ('x.onnx', None, 'no file'),
        ('x.onnx', b'a cat', 'is no ONNX file'),
        ('x.safetensors', b'a cat', 'is no file of weights'),
    ],
)
def test_what_is_no_network(kdfast, images, tmp_path, name, content, said):
    if content:
        (tmp_path / name).write_bytes(content)
    done = kdfast('predict', tmp_path / name, images / 'valid' / 'bee' / '000.png')
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1


@pytest.mark.skipif(sys.platform != 'linux', reason='threads are counted in /proc')
def test_an_onnx_file_is_run_by_as_many_threads_as_the_network(onnx):
    def n_threads():
        return len(os.listdir('/proc/self/task'))

    with threads_used(7):
        before = n_threads()
        session = predict.onnx_session(str(onnx[0]))
        assert n_threads() == before + 6  # the thread of the caller is one of them
    del session


def test_predictions_and_exports_use_the_cores_that_there_are(one_core, onnx, study, kdfast, images, tmp_path):
    kind = study / 'exp2' / '0', onnx[0]
    for words in (
        *(('predict', file, images / 'valid' / 'bee' / '000.png') for file in kind),
        ('export', kind[0], '--to', tmp_path / 'x.safetensors'),
    ):
        torch.set_num_threads(3)
        done = kdfast(*words)
        assert done.status == 0 and torch.get_num_threads() == 1, done.err


def test_a_strangers_onnx_file_says_no_classes(kdfast, images, onnx, tmp_path):
    import onnx as library

    model = library.load(onnx[0])
    del model.metadata_props[:]
    library.save(model, tmp_path / 'x.onnx')
    done = kdfast('predict', tmp_path / 'x.onnx', images / 'valid' / 'bee' / '000.png')
    assert done.status == 2 and 'does not name its classes' in done.err


@pytest.mark.parametrize(
    'change,said',
    [
        (dict(classes=['a', 'b']), r'returns \(1, 3\) for one image: expected \(1, 2\)'),
        (dict(classes=['a', 'b', 'c', 'd']), r'returns \(1, 3\) for one image: expected \(1, 4\)'),
        (dict(size=[8, 9], presized=None), 'is no classifier of the images that it describes'),
        (dict(std=[0.1, 0.0, 0.1]), 'does not describe its network'),
    ],
)
def test_a_model_that_is_not_what_its_file_describes(kdfast, images, onnx, tmp_path, change, said):
    import onnx as library

    model = library.load(onnx[0])
    description = json.loads(model.metadata_props[0].value) | change
    library.helper.set_model_props(model, dict(kdfast=json.dumps(description)))
    library.save(model, tmp_path / 'x.onnx')
    done = kdfast('predict', tmp_path / 'x.onnx', images / 'valid' / 'bee' / '000.png')
    assert done.status == 2 and re.search(said, done.err) and done.err.count('\n') == 1


def test_a_run_on_held_out_photographs_is_checked_a_batch_at_a_time(kdfast, images, tmp_path, monkeypatch):
    from kdfast.export import export

    shown_as = '--data', images, '--holdout', 0.25, '--size', 8
    done = kdfast('run', 'baseline', *shown_as, '--epochs', 1, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
    seen, probabilities = [], export.probabilities
    monkeypatch.setattr(export, 'BATCH', 5)

    def counted(classify, batch, *args):
        return seen.append(len(batch)) or probabilities(classify, batch, *args)

    monkeypatch.setattr(export, 'probabilities', counted)
    done = kdfast('export', 'baseline', '--to', tmp_path / 'net.safetensors', '--runs', tmp_path / 'runs')
    assert done.status == 0 and '0 of 18 validation images are classified differently' in done.out, done.err
    assert seen == [5, 5, 5, 5, 5, 5, 3, 3]


@pytest.mark.parametrize('mask', [None, (6, 6), (4, 6, 6), (1, 4, 6, 6), (3, 4, 6, 6)])
@pytest.mark.parametrize('outer', [(2,), (2, 3), (2, 1, 3)])
def test_attention_of_any_number_of_dimensions_is_computed_in_four(outer, mask):
    "PyTorch's ONNX exporter accepts no more"
    if mask and len(mask) - 3 > 0 and mask[0] == 3 and outer[-1] != 3:
        pytest.skip('the mask does not fit')
    torch.manual_seed(0)
    q, k, v = torch.randn(3, *outer, 4, 6, 8)
    bias = None if mask is None else torch.randn(mask)
    found = export.attention_in_4d(q, k, v, bias, scale=0.3)
    torch.testing.assert_close(found, export.ATTENTION(q, k, v, bias, scale=0.3))


def test_an_attention_over_five_dimensions_is_exported(tmp_path, data):
    class Windows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.head = torch.nn.Conv2d(3, 24, 1), torch.nn.Linear(8, 3)

        def forward(self, x):
            q, k, v = self.qkv(x).flatten(2).unflatten(2, (4, -1)).unflatten(1, (3, 1, 8)).permute(1, 0, 4, 2, 5, 3)
            x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return self.head(x.mean((1, 2, 3)))

    network = Windows().eval()
    network.build_info = dict(network='windows', mean=data.mean, std=data.std, size=[8, 8], classes=data.classes)
    export.to_onnx(network, tmp_path / 'x.onnx')
    session, images = onnxruntime.InferenceSession(tmp_path / 'x.onnx'), np.random.rand(3, 3, 8, 8).astype(np.float32)
    (found,) = session.run(None, dict(images=images))
    assert np.allclose(found, predict.from_network(network)(images), atol=1e-5)


def test_the_first_conversion_with_the_networks_outputs_counts(tmp_path, data, monkeypatch):
    def network(seed):
        torch.manual_seed(seed)
        found = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
        found.build_info = dict(network='flat', mean=data.mean, std=data.std, size=[8, 8], classes=data.classes)
        return found

    def fails(model, images):
        print('a graph of ten thousand lines')
        raise RuntimeError('no such operation\n  in line 7')

    def converts_another(model, images):
        return export.by_graph(predict.InferenceModel(network(1)).eval(), images)

    tried = []
    ways = [
        lambda *given, way=way: tried.append(way) or way(*given) for way in (fails, converts_another, export.by_tracing)
    ]
    monkeypatch.setattr(export, 'CONVERSIONS', ways)
    export.to_onnx(network(0), tmp_path / 'x.onnx')
    assert tried == [fails, converts_another, export.by_tracing]
    classify, _ = predict.classifier(tmp_path / 'x.onnx')
    images = np.random.rand(5, 3, 8, 8).astype(np.float32)
    assert np.allclose(classify(images), predict.from_network(network(0))(images), atol=1e-5)
    monkeypatch.setattr(export, 'CONVERSIONS', ways[:2])
    with pytest.raises(KdfastError, match='^flat cannot be written as ONNX: no such operation$'):
        export.to_onnx(network(0), tmp_path / 'y.onnx')
    assert not (tmp_path / 'y.onnx').exists()


def test_a_network_that_no_way_converts_is_refused_in_one_sentence(tmp_path, data, capfd):
    class Singular(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x[:, 0])[:, :3]  # the exporter prints the graph, in C++

    class Random(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) + 9 * torch.rand(3)

    (tmp_path / 'x.onnx').write_text('of another run')
    for network, cause in (Singular(), 'No ONNX function found.*'), (Random(), 'the converted .* outputs for 1 image'):
        network.build_info = dict(network='odd', mean=data.mean, std=data.std, size=[8, 8], classes=data.classes)
        with pytest.raises(KdfastError, match=f'^odd cannot be written as ONNX: {cause}$'):
            export.to_onnx(network, tmp_path / 'x.onnx')
    assert capfd.readouterr() == ('', '') and [file.name for file in tmp_path.iterdir()] == ['x.onnx']
    assert (tmp_path / 'x.onnx').read_text() == 'of another run'


@pytest.mark.parametrize('convert', export.CONVERSIONS)
def test_all_conversions_take_any_number_of_images(data, convert):
    "And names of the network's own weights and operations do not collide with those of the normalization"
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network.build_info = dict(network='mean', mean=data.mean, std=data.std, size=[8, 8], classes=list('abcd'))
    export.converted(convert, network)


@pytest.mark.parametrize(
    'command', [('predict', 'cat.png'), ('export', '--to', 'e.onnx'), ('export', '--to', 'e.safetensors')]
)
def test_weights_of_another_run_are_refused(study, kdfast, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (8, 8)).save('cat.png')
    shutil.copytree(study / 'kd' / '0', tmp_path / 'tiny' / 'kd' / '0')
    shutil.copy(study / 'baseline' / '0' / 'weights.safetensors', tmp_path / 'tiny' / 'kd' / '0')
    for run in ('tiny/kd/0', *(['tiny/kd/0/weights.safetensors'] if command[0] == 'predict' else [])):
        done = kdfast(command[0], run, *command[1:])
        assert done.status == 2 and 'weights.safetensors has changed since it was written' in done.err
    assert not list(tmp_path.glob('e.*'))
