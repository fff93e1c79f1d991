"Code in a run directory runs only where it was trained with or with --trust-code."

import json

import pytest
import strangers
from strangers import commands, ran

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.runs import trust

made = pytest.fixture(scope='module')(strangers.made)
stranger = pytest.fixture(strangers.stranger)


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


def test_clearing_the_cache_keeps_the_list_of_trusted_code(kdfast, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(trust, 'accepted', set())
    facts, file = dict(network='mine.py:tiny', source={}), tmp_path / 'x.safetensors'
    trust.accept(facts)
    downloads = cache_home() / 'torchvision'
    downloads.mkdir()
    assert [entry['name'] for entry in json.loads(kdfast('cache', 'list', '--json').out)] == ['torchvision']
    assert kdfast('cache', 'clear', 'trusted').status == 2
    assert 'removed 1' in kdfast('cache', 'clear', '--all').out and not downloads.exists()
    monkeypatch.setattr(trust, 'accepted', set())
    trust.check(facts, file)
