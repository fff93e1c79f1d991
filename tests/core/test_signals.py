"Ctrl-C and SIGTERM: the current step is finished and saved, exit statuses, and no process is left behind."

import signal
import subprocess
import sys

import pytest
from conftest import beside, until
from fastai.basics import Callback
from interruptions import same

from kdfast.core import signals
from kdfast.core.errors import KdfastError
from kdfast.core.explain import errors_explained
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.training.execute import train

PER_EPOCH = 9  # steps


class Send(Callback):
    "Signals, at one moment of a fit"

    order = 90

    def __init__(self, epoch, step, event='after_pred', times=1):
        self.sent = 0

        def act():
            if (self.epoch, self.iter) == (epoch, step) and self.learn.metrics_log.fitting:
                for self.sent in range(1, times + 1):
                    signal.raise_signal(signal.SIGTERM)

        setattr(self, event, act)


@pytest.fixture
def heard():
    handlers = [(number, signal.getsignal(number)) for number in signals.MESSAGES]
    signals.install_handlers()
    yield
    for number, handler in handlers:
        signal.signal(number, handler)
    signals.received = None


@pytest.fixture(scope='module')
def whole(study, data, tmp_path_factory):
    return train(find_recipe('kd'), data, 0, dict(epochs=2), beside(study, tmp_path_factory.mktemp('whole'), 'teacher'))


@pytest.mark.parametrize(
    'epoch,step,event,kept',
    [
        (0, 4, 'after_pred', '0000-000005'),
        (1, PER_EPOCH - 1, 'after_step', '0001-000009'),
        (1, PER_EPOCH - 1, 'after_train', '0001-000000'),
        (1, 0, 'after_validate', 'end'),
    ],
)
def test_a_signal_lets_the_step_finish_and_saves_it(study, data, whole, tmp_path, heard, epoch, step, event, kept):
    runs, kd = beside(study, tmp_path, 'teacher'), find_recipe('kd')
    with pytest.raises(signals.Interrupted) as e:
        train(kd, data, 0, dict(epochs=2), runs, [lambda _: Send(epoch, step, event)])
    folder = RunDir(tmp_path / 'tiny' / 'kd,epochs=2' / '0')
    assert e.value.code == 143 and folder.status == 'interrupted'
    assert any(kept in file.name for file in (folder / 'resume').iterdir()), sorted((folder / 'resume').iterdir())
    signals.install_handlers()
    assert same(train(kd, data, 0, dict(epochs=2), runs), whole)


def test_a_second_signal_ends_the_run_at_once(study, data, whole, tmp_path, heard):
    runs, kd, send = beside(study, tmp_path, 'teacher'), find_recipe('kd'), Send(0, 4, times=2)
    with pytest.raises(signals.Interrupted):
        train(kd, data, 0, dict(epochs=2), runs, [lambda _: send])
    folder = RunDir(tmp_path / 'tiny' / 'kd,epochs=2' / '0')
    assert send.sent == 2 and [file.name[:14] for file in (folder / 'resume').iterdir()] == [
        '01-0000-000000'
    ]  # the step was not kept
    signals.install_handlers()
    assert same(train(kd, data, 0, dict(epochs=2), runs), whole)


@pytest.mark.parametrize('number,status,seeds', [(signal.SIGINT, 130, '01'), (signal.SIGKILL, -9, '0')])
def test_a_study_that_ends_leaves_no_process(images, tmp_path, number, status, seeds):
    "Not even where the study is killed and can tell them nothing"
    command = [
        sys.executable,
        '-P',
        '-m',
        'kdfast',
        'study',
        'baseline',
        '--seeds',
        str(len(seeds)),
        '--epochs',
        '500',
        '--jobs',
        '2',
        '--data',
        images,
        '--runs',
        tmp_path,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folders = [RunDir(tmp_path / 'tiny' / 'baseline,epochs=500' / seed) for seed in seeds]
    until(lambda: all((folder / 'metrics.csv').exists() for folder in folders), lambda: process.poll() is not None)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    process.wait()
    assert process.returncode == status
    until(lambda: not any(folder.is_locked for folder in folders))  # each holds its folder as long as it lives
    assert [folder.run['status'] for folder in folders] == ['interrupted'] * len(seeds)


def test_a_signal_in_the_users_code_is_no_error_of_that_code():
    with pytest.raises(signals.Interrupted), errors_explained('kd.py', None):
        raise signals.Interrupted(signal.SIGTERM)
    with pytest.raises(KdfastError, match='kd.py: SystemExit: 3'), errors_explained('kd.py', None):
        sys.exit(3)
