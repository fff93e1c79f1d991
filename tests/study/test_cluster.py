"A study on a Ray cluster: this machine's, of one head."

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import equal, recipe, weights

ray = pytest.importorskip('ray')


@pytest.fixture(scope='module')
def address():
    "A cluster that ends with the tests"
    port = 6399
    head = subprocess.Popen(
        [
            Path(sys.executable).with_name('ray'),
            'start',
            '--head',
            '--block',
            '--port',
            str(port),
            '--num-cpus',
            '2',
            '--include-dashboard',
            'false',
            '--disable-usage-stats',
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f'127.0.0.1:{port}'
    head.terminate()
    head.wait()


def study(images, runs, *more):
    "As a process of its own: a cluster is joined once in a process's life"
    return subprocess.run(
        [sys.executable, '-P', '-m', 'kdfast', 'study', *more, '--data', images, '--runs', runs],
        capture_output=True,
        text=True,
    )


def test_a_ray_cluster_gives_the_same_folders_and_weights(address, kdfast, images, tmp_path):
    recipe(tmp_path / 'mine.py', 'raise RuntimeError("no luck")')
    for attempt in range(20):  # the cluster needs a moment to begin
        there = study(
            images,
            tmp_path / 'there',
            'baseline',
            tmp_path / 'mine.py',
            '--epochs',
            '1',
            '--seeds',
            '1',
            '--ray',
            address,
        )
        if 'no Ray cluster' not in there.stderr:
            break
    assert there.returncode == 2 and 'line 7: RuntimeError: no luck' in there.stderr, there.stderr
    assert kdfast('run', 'baseline', '--epochs', 1, '--data', images, '--runs', tmp_path / 'here').status == 0
    one, two = (tmp_path / where / 'tiny' / 'baseline,epochs=1' / '0' for where in ('here', 'there'))
    assert equal(weights(one), weights(two)) and json.loads((two / 'run.json').read_text())['status'] == 'finished'


def test_a_missing_ray_cluster_is_an_error(kdfast, images, tmp_path):
    done = kdfast('study', 'baseline', '--data', images, '--runs', tmp_path, '--ray', '127.0.0.1:1')
    assert done.status == 2 and 'no Ray cluster at 127.0.0.1:1' in done.err and not list(tmp_path.iterdir())
