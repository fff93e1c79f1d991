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


@pytest.mark.parametrize(
    'resources, threads, jobs, given, share',
    [
        (dict(CPU=8), 2, 4, None, 0),
        (dict(CPU=8, GPU=2), 2, 2, None, 1),
        (dict(CPU=8, GPU=16), 2, 4, None, 1),
        (dict(CPU=8, GPU=1), 16, 1, None, 1),
        (dict(CPU=8, GPU=2), 1, 2, 3, 0.5),
        (dict(CPU=8, GPU=1), 1, 1, 3, 0.3333),
        (dict(GPU=3), 1, 1, 4, 0.5),
    ],
)
def test_runs_share_the_gpus_of_a_cluster(monkeypatch, resources, threads, jobs, given, share):
    from kdfast.study import ray_cluster

    monkeypatch.setattr('ray.cluster_resources', lambda: resources)
    assert ray_cluster.default_jobs(threads) == jobs and ray_cluster.gpus_of_run(given or jobs) == share


@pytest.mark.parametrize('share, reserved', [(0, None), (0.5, 0.5)])
def test_a_task_reserves_its_share_of_a_gpu(monkeypatch, share, reserved):
    from kdfast.study import ray_cluster

    asked = []

    class There:
        def options(self, **options):
            asked.append(options)
            return self

        def remote(self, *arguments):
            return arguments

    monkeypatch.setattr(ray_cluster, 'train_there', There())
    assert ray_cluster.Task(['kdfast'], 2, share).result == (['kdfast'], 2)
    assert asked == [dict(num_cpus=2, num_gpus=reserved, max_retries=0)]
