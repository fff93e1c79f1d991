"Run directories that somebody has changed run no code."

import json
import shutil

import onnx
import pytest
import safetensors.torch
import strangers
from strangers import SOURCE, ran

from kdfast.core.errors import KdfastError
from kdfast.core.source import sha256_of
from kdfast.models.description import read_description
from kdfast.models.saved import load_network_file, trust_code

made = pytest.fixture(scope='module')(strangers.made)
stranger = pytest.fixture(strangers.stranger)


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
