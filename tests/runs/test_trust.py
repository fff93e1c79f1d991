"Code that comes with weights runs only where it was trained with, or where the user says so; and never from elsewhere."

import json
import shutil

import onnx
import pytest
import safetensors.torch

from kdfast.core.errors import KdfastError
from kdfast.core.source import sha256_of
from kdfast.models.description import read_description
from kdfast.models.saved import load_network_file, trust_code
from kdfast.runs import trust

SOURCE = '''from pathlib import Path
from torch import nn
(Path(__file__).parent/'ran').touch()
def tiny(n): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))
def other(n): return tiny(n)
'''


@pytest.fixture(scope='module')
def made(kdfast, images, tmp_path_factory):
    "A run of somebody's, and an export of it"
    home = tmp_path_factory.mktemp('theirs')
    (home / 'mine.py').write_text(SOURCE)
    done = kdfast(
        'run', 'baseline', '--student', f'{home}/mine.py:tiny', '--epochs', 1, '--data', images, '--runs', home / 'runs'
    )
    assert done.status == 0, done.err
    (run,) = home.glob('runs/*/*/0')
    assert kdfast('export', run, '--to', home / 'x.safetensors').status == 0
    return run, home / 'x.safetensors'


@pytest.fixture
def stranger(made, tmp_path, monkeypatch):
    "Both, on a machine that has not trained with them"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(trust, 'accepted', set())
    shutil.copytree(made[0], tmp_path / 'run')
    for name in ('source', 'x.safetensors'):
        copy = shutil.copytree if name == 'source' else shutil.copy
        copy(made[1].parent / name, tmp_path / name)
    for ran in tmp_path.rglob('ran'):
        ran.unlink()
    return tmp_path


def ran(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob('ran'))


def commands(folder, images):
    image = images / 'valid' / 'bee' / '000.png'
    return [
        ('predict', folder / 'run', image),
        ('predict', folder / 'x.safetensors', image),
        ('export', folder / 'run', '--to', folder / 'y.onnx'),
        ('layers', 'thin', '--teacher', folder / 'run'),
        ('layers', folder / 'run'),
        ('run', 'kd', '--epochs', 1, '--teacher', folder / 'run', '--data', images, '--runs', folder / 'runs'),
    ]


@pytest.mark.parametrize('which', range(6))
def test_code_in_a_run_directory_runs_only_with_trust_code(kdfast, images, stranger, which):
    command = commands(stranger, images)[which]
    done = kdfast(*command)
    assert (
        done.status == 2
        and '--trust-code' in done.err
        and 'mine.py' in done.err
        and done.err.count('error:') == 1
        and not ran(stranger)
    ), done.err
    assert not (stranger / 'runs').exists()
    done = kdfast(*command, '--trust-code')
    assert done.status == 0 and ran(stranger), done.err
    assert kdfast(*command).status == 0  # it was said


def test_a_study_passes_trust_code_to_its_runs(kdfast, images, stranger):
    command = (
        'study',
        'kd',
        '--seeds',
        1,
        '--epochs',
        1,
        '--teacher',
        stranger / 'run',
        '--data',
        images,
        '--runs',
        stranger / 'runs',
    )
    assert kdfast(*command).status == 2 and not ran(stranger)
    done = kdfast(*command, '--trust-code')
    assert done.status == 0, done.err


def test_code_that_was_trained_here_needs_no_trust_code(kdfast, images, made):
    for command in commands(made[0].parents[3], images)[1:2]:
        assert kdfast(*command).status == 0
    assert kdfast('predict', made[0], images / 'valid' / 'bee' / '000.png').status == 0


def forge(file, **changes):
    "A file that says something else of its network"
    facts = read_description(file) | changes
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, dict(built_by=json.dumps(facts)))


def refused(file):
    with pytest.raises(KdfastError) as said:
        load_network_file(file)
    return said.value.message


@pytest.mark.parametrize(
    'change',
    [
        dict(network='mine.py:other'),
        dict(network='mine.py:Path'),
        dict(network='mine.py:nn.Linear'),
        dict(network='mine.py:tiny(n=3)'),
        dict(network='os:system'),
        dict(network='os:system', source={}),
        dict(network='kdfast.cli:main', source={}),
        dict(network='kdfast.models.study_networks:network', source={}),
        dict(network='../outside.py:tiny', source={}),
        dict(network='/tmp/outside.py:tiny'),
        dict(network='mine.py:tiny', source={}),
        dict(network='tests.conftest:make', source={}),
    ],
)
def test_another_function_is_another_code(made, stranger, change):
    "Also where the file that it is in may run: what is trusted is a name with its sources, and nothing else of them"
    file = stranger / 'x.safetensors'
    trust_code(file)
    forge(file, **change)
    assert 'was not trained with here' in refused(file) and not ran(stranger)


def test_a_name_that_leads_elsewhere_runs_nothing_even_if_it_is_trusted(stranger):
    (stranger / 'outside.py').write_text(SOURCE)
    file = stranger / 'x.safetensors'
    for name in ('../outside.py', str(stranger / 'outside.py'), 'a/../../outside.py'):
        sha256 = sha256_of(stranger / 'outside.py')
        forge(file, network=f'{name}:tiny', source={name: sha256})
        trust_code(file)
        assert 'leads out' in refused(file)
    forge(file, network='../outside.py:tiny', source={'mine.py': sha256_of(stranger / 'source' / 'mine.py')})
    trust_code(file)
    assert 'was not saved' in refused(file) and not ran(stranger)


def test_a_trusted_file_that_changes_and_one_that_joins_it_run_nothing(stranger):
    file = stranger / 'x.safetensors'
    trust_code(file)
    load_network_file(file)
    for copy in ran(stranger):
        (stranger / copy).unlink()
    (stranger / 'source' / 'torch.py').write_text(SOURCE)  # not among its sources
    load_network_file(file)
    with (stranger / 'source' / 'mine.py').open('a') as f:
        f.write('#')
    for copy in ran(stranger):
        (stranger / copy).unlink()
    assert 'is not the file that the network was trained with' in refused(file) and not ran(stranger)
    (stranger / 'source' / 'mine.py').unlink()
    assert 'belongs beside its weights' in refused(file)


def test_a_link_among_the_sources_is_only_its_content(stranger):
    "What is executed are the bytes that were compared"
    (stranger / 'source' / 'pkg').symlink_to(stranger / 'outside')
    (stranger / 'outside').mkdir()
    (stranger / 'outside' / '__init__.py').write_text(SOURCE)
    file = stranger / 'x.safetensors'
    source = (
        (stranger / 'source' / 'mine.py')
        .read_text()
        .replace('from torch import nn', 'import pkg\nfrom torch import nn')
    )
    (stranger / 'source' / 'mine.py').write_text(source)
    forge(file, source={'mine.py': sha256_of(stranger / 'source' / 'mine.py')})
    trust_code(file)
    assert "No module named 'pkg'" in refused(file) and not (stranger / 'outside' / 'ran').exists()


@pytest.mark.parametrize(
    'facts',
    [
        dict(network=5),
        dict(classes='ab', network=None),
        dict(classes=[1, 2]),
        dict(mean=[1, 2]),
        dict(mean=5),
        dict(std=['a', 'b', 'c']),
        dict(size=[8]),
        dict(size=[8, -8]),
        dict(size=[8, 10**9]),
        dict(source=['mine.py']),
        dict(source={'mine.py': 5}),
        dict(network='timm:resnet18(pretrained=True)'),
        dict(network='thin(__import__("os"))'),
        dict(network='timm:resnet18(checkpoint_path="/etc/passwd")'),
        dict(network='torchvision:resnet18(weights="DEFAULT")'),
        dict(network='timm:hf-hub:a/b'),
    ],
)
def test_metadata_that_kdfast_does_not_write_are_refused_in_words(study, tmp_path, facts):
    shutil.copy(study / 'baseline' / '0' / 'weights.safetensors', tmp_path)
    forge(tmp_path / 'weights.safetensors', **facts)
    assert '\n' not in refused(tmp_path / 'weights.safetensors')


def test_onnx_metadata_run_nothing(kdfast, images, made, stranger):
    assert kdfast('export', stranger / 'run', '--to', stranger / 'y.onnx', '--trust-code').status == 0
    for copy in ran(stranger):
        (stranger / copy).unlink()
    model = onnx.load(stranger / 'y.onnx')
    (entry,) = (p for p in model.metadata_props if p.key == 'kdfast')
    entry.value = json.dumps(json.loads(entry.value) | dict(network='mine.py:tiny'))
    onnx.save(model, stranger / 'y.onnx')
    assert kdfast('predict', stranger / 'y.onnx', images / 'valid' / 'bee' / '000.png').status == 0 and not ran(
        stranger
    )


def test_a_recipe_in_a_runs_folder_is_read_and_not_run(kdfast, images, study, tmp_path):
    runs = tmp_path / 'runs'
    shutil.copytree(study / 'baseline', runs / 'tiny' / 'baseline')
    with (runs / 'tiny' / 'baseline' / '0' / 'recipe.py').open('a') as f:
        f.write(f'\nfrom pathlib import Path\nPath({str(tmp_path / "ran")!r}).touch()\n')
    for command in (
        ['run', 'baseline', '--data', images],
        ['compare'],
        ['report', '--out', tmp_path / 'r.html'],
        ['confusion', 'baseline'],
    ):
        kdfast(*command, '--runs', runs)
    kdfast('predict', runs / 'tiny' / 'baseline' / '0', images / 'valid' / 'bee' / '000.png')
    assert not ran(tmp_path)


def test_a_run_of_files_that_are_here_and_equal_is_ones_own(kdfast, images, made, tmp_path, monkeypatch):
    "Trained on another machine: who names the same file, with the same content, has it already"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(trust, 'accepted', set())
    home = made[1].parent
    command = (
        'run',
        'baseline',
        '--student',
        f'{home}/mine.py:tiny',
        '--epochs',
        1,
        '--data',
        images,
        '--runs',
        home / 'runs',
    )
    assert kdfast('predict', made[0], images / 'valid' / 'bee' / '000.png').status == 2
    assert kdfast(*command).status == 0
    assert kdfast('predict', made[0], images / 'valid' / 'bee' / '000.png').status == 0


def test_a_cache_that_cannot_be_written_costs_no_training(monkeypatch, tmp_path):
    "What is trusted is known to the process, and has to be said to the next one"
    (tmp_path / 'cache').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    facts, file = dict(network='mine.py:tiny', source={}), tmp_path / 'x.safetensors'
    trust.accept(facts)
    trust.check(facts, file)
    monkeypatch.setattr(trust, 'accepted', set())
    with pytest.raises(KdfastError, match='--trust-code'):
        trust.check(facts, file)
