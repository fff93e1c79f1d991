"""Can the slow suite fail? What each of its ordeals is about is broken once, and the ordeal must notice.

python tests/slow/mutation_checks.py [name …] [--seed 0]

Prints, for each, what was left out and how many trials passed nevertheless; ends with 1 where all of an ordeal's did.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import traceback
from dataclasses import replace

import numpy as np

import fault_injection as ordeal  # before anything of kdfast: it sets the threads
import test_resume

from kdfast.core import atomic, signals
from kdfast.data import decode
from kdfast.models import saved
from kdfast.runs import resume_check, run_dir
from kdfast.runs.run_dir import RunDir
from kdfast.training import batch_values, checkpoints, metrics_log, outputs, restore
from kdfast.training.checkpoints import Checkpoints


def nothing(*_, **__):
    return None


def no_network():
    restore.StateRestorer.copy_into = lambda self, old, x: old


def no_record():
    metrics_log.MetricsLog.load_state_dict = nothing


def no_optimizer():
    "Its state is as at the beginning of the fit"
    put = Checkpoints.restore

    def forgetful(self, learn):
        found = put(self, learn)
        learn.opt.clear_state()
        return found

    Checkpoints.restore = forgetful


def no_lock():
    RunDir.locked = contextlib.contextmanager(lambda self: (yield))


def no_comparison():
    test_resume.same = lambda *_: True


def no_look_at_numbers():
    batch_values.isfinite = outputs.isfinite = lambda value: True


def no_status():
    signals.Interrupted.__init__ = lambda self, number: (
        SystemExit.__init__(self, 0),
        setattr(self, 'message', signals.MESSAGES[number]),
    )[0]


def failed_starts_over():
    resume_check.RESUMABLE = ('running', 'interrupted')


def finished_at_once():
    "The word before the numbers"
    finish = RunDir.finish

    def early(self, result):
        self.set_status('finished', files={})
        finish(self, result)

    RunDir.finish = early


def silent_disk():
    "A file that cannot be written is left out"
    write = atomic.write

    def careless(file, content):
        with contextlib.suppress(OSError):
            write(file, content)

    run_dir.write = checkpoints.write = atomic.write = careless


def no_hash():
    Checkpoints.newest = lambda self, *where: next(iter(self.places(*where)), None)


def numpy_unpickles():
    def obeying(read):
        return lambda *args, **kwargs: read(*args, **kwargs | dict(allow_pickle=True))

    np.load, np.lib.format.read_array = obeying(np.load), obeying(np.lib.format.read_array)


def any_file_is_an_image():
    from PIL import Image

    decode_image = decode.decode_image

    def careless(content, side=None):
        found = decode_image(content, side)
        return replace(found, pixels=np.asarray(Image.new('RGB', (8, 8))), problem='') if found.problem else found

    decode.decode_image = careless


def no_running_statistics():
    load = saved.load_network

    def fresh(folder):
        network = load(folder)
        for module in network.modules():
            if hasattr(module, 'reset_running_stats'):
                module.reset_running_stats()
        return network

    ordeal.load_network = fresh  # in this process, not in the fresh one


def begun_is_finished(bench):
    "A study that trains nothing whose folder is there"
    bench.command = [
        sys.executable,
        '-P',
        '-c',
        'from kdfast import cli; from kdfast.runs.run_dir import RunDir\n'
        'RunDir.finished = property(lambda self: (self.path/"run.json").exists())\ncli.main()',
    ]


MUTANTS = {  # of an ordeal: what is broken, how, and how many trials, where the ordeal counts any
    'kill': ('the network is not restored', no_network, 25),
    'checkpoint': ('the optimizer is not restored', no_optimizer, 6),
    'stages': ('finished is said before the numbers are there', finished_at_once, 8),
    'recipes': ('the record is not restored', no_record, 1),
    'failures': ('the checkpoints of a failed run are not used', failed_starts_over, 3),
    'studies': ('what has begun is taken for finished', begun_is_finished, 8),
    'controls': ('nothing is compared', no_comparison, 1),
    'disk': ('what cannot be written is left out', silent_disk, 9),  # every ninth call
    'damage': ('no hash is compared', no_hash, 20),
    'signals': ('the exit status is 0', no_status, 4),
    'starters': ('no lock', no_lock, 4),
    'nan': ('nobody looks at numbers', no_look_at_numbers, 4),
    'inputs': ('what is no image is a black one', any_file_is_an_image, 1),
    'hostile': ('what numpy has pickled is unpickled', numpy_unpickles, 1),
    'reload': ('batch norms forget their statistics', no_running_statistics, 1),
}


def broken(bench, name, reading, writing):
    "In a process of its own: the ordeal with its mutant; how many passed and were tried goes to the pipe"
    _, mutate, n = MUTANTS[name]
    os.close(reading)
    mutate(bench) if name == 'studies' else mutate()
    try:
        with open(os.devnull, 'w') as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            passed = ordeal.ORDEALS[name][1](bench, n)
        os.write(writing, f'{sum(passed)} {len(passed)}'.encode())
    except Exception:
        traceback.print_exc()  # the ordeal could not even be tried
    finally:
        os._exit(0)  # the bench is the parent's


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='name', help=', '.join(MUTANTS))
    parser.add_argument('--seed', type=int, default=0, help='of the random moments')
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        bench, survived = ordeal.Bench(home, asked.seed), 0
        for name in asked.names or MUTANTS:
            bench.n += 1000  # what another mutant left lies aside
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                broken(bench, name, reading, writing)
            os.close(writing)
            with open(reading) as said:
                passed, tried = map(int, said.read().split() or (0, 0))
            os.waitpid(pid, 0)
            survived += passed == tried
            found = 'NOT TRIED' if not tried else 'NOT NOTICED' if passed == tried else 'noticed'
            print(f'{name:<12}{MUTANTS[name][0]:<50} {passed:>4}/{tried:<4} {found}', flush=True)
    sys.exit(survived > 0)


if __name__ == '__main__':
    main()
