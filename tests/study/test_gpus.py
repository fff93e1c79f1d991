"Runs of a study share the GPUs of a machine."

import sys
import time
from collections import Counter

import pytest

from kdfast.study.fork_server import run_starter
from kdfast.study.gpus import GpuStarter, visible_gpus
from kdfast.study.process import Process, stop_processes

SAYS = 'import os, sys; open(sys.argv[1], "w").write(os.environ["CUDA_VISIBLE_DEVICES"] + "\\n"); sys.stdin.read()'
WHOLE = ['0', '1', '2']


@pytest.mark.parametrize(
    'given,n,gpus',
    [
        (None, 3, WHOLE),
        ('', 3, WHOLE),
        ('2,5', 2, ['2', '5']),
        (' 2 , 5 ', 2, ['2', '5']),
        ('2,5,99', 2, ['2', '5']),  # CUDA stops at the first that does not exist
        ('GPU-8932f937,GPU-b2a9', 2, ['GPU-8932f937', 'GPU-b2a9']),
        ('MIG-c6d4f1ef', 1, ['MIG-c6d4f1ef']),
        ('-1', 0, []),
    ],
)
@pytest.mark.parametrize('name,hip', [('CUDA', None), ('HIP', '6.4'), ('CUDA', '6.4')])
def test_gpus_that_the_user_selected_are_used_and_no_others(monkeypatch, given, n, gpus, name, hip):
    monkeypatch.setattr('torch.cuda.device_count', lambda: n)
    monkeypatch.setattr('torch.version.hip', hip)
    for variable in ('CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES'):
        monkeypatch.delenv(variable, raising=False)
    if given is not None:
        monkeypatch.setenv(f'{name}_VISIBLE_DEVICES', given)
    assert visible_gpus() == gpus


def said(file):
    "What a process has written, when it has"
    while not (file.exists() and file.read_text().endswith('\n')):
        time.sleep(0.01)
    return file.read_text().strip()


def test_a_process_sees_one_gpu_the_one_with_the_fewest_processes(tmp_path):
    start, processes, files = GpuStarter(['0', 'GPU-b2a9', '7']), [], [tmp_path / str(i) for i in range(8)]

    def begin(file):
        processes.append(start([sys.executable, '-c', SAYS, str(file)], 1))
        return said(file)

    try:
        assert Counter(begin(file) for file in files[:6]) == {'0': 2, 'GPU-b2a9': 2, '7': 2}
        freed = said(files[4])
        processes[4].process.stdin.close()
        processes[4].wait()
        assert [begin(file) for file in files[6:]] == [freed, '0']
    finally:
        stop_processes(processes)


@pytest.mark.parametrize('gpus,kind', [(0, None), (1, None), (2, GpuStarter)])
def test_one_gpu_is_left_to_pytorch(monkeypatch, gpus, kind):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    with run_starter() as start:
        assert type(start) is kind if kind else start is Process
