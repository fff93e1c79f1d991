"Cached directories and results: computed once, written whole or not at all, by any number of processes."

import os
import platform
import subprocess
import sys

import pytest
from conftest import draw

from kdfast.core import distributed
from kdfast.core.cache_home import cache_home
from kdfast.core.once import compute_once, create_folder_once
from kdfast.data import holdout, load

ABANDONED = '''
import os, signal, sys
from kdfast.data import decode, load
decode.decode_image = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
load(sys.argv[1])
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    draw(tmp_path / 'pets' / 'train', 8, seed=0)
    draw(tmp_path / 'pets' / 'valid', 4, seed=1)
    return tmp_path / 'pets'


def test_what_a_killed_process_left_goes_at_the_next_start(folder):
    assert subprocess.run([sys.executable, '-c', ABANDONED, folder]).returncode == -9
    (left,) = cache_home().iterdir()
    assert left.name.startswith('new-')
    mine, foreign = cache_home() / f'new-x-{platform.node()}-{os.getpid()}', cache_home() / 'new-x-elsewhere-1'
    mine.mkdir(), foreign.mkdir()
    load(str(folder))
    assert not left.exists() and mine.exists() and foreign.exists() and len(list(cache_home().iterdir())) == 3


def test_of_two_that_begin_at_once_the_first_that_is_done_counts(tmp_path):
    folder, filled = tmp_path / 'home' / 'folder', []

    def other(new):
        filled.append('other'), (new / 'whose').write_text('other')

    def ours(new):
        filled.append('ours')
        with pytest.MonkeyPatch.context() as patch:  # as in another process
            patch.setattr('os.getpid', lambda: 10**9)
            create_folder_once(folder, other)
        (new / 'whose').write_text('ours')

    create_folder_once(folder, ours)
    assert (
        filled == ['ours', 'other']
        and (folder / 'whose').read_text() == 'other'
        and [f.name for f in folder.parent.iterdir()] == ['folder']
    )
    create_folder_once(folder, lambda new: pytest.fail('it is there'))


def test_what_a_killed_process_of_the_same_number_left_is_filled_anew(tmp_path):
    "As in a container that starts again, where every process has the number that it had"
    left = tmp_path / f'new-folder-{platform.node()}-{os.getpid()}'
    left.mkdir()
    (left / 'half').write_text('')
    create_folder_once(tmp_path / 'folder', lambda new: (new / 'whole').write_text(''))
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob('*')] == ['folder', 'folder/whole']


def test_what_fails_leaves_nothing(tmp_path):
    def fail(new):
        (new / 'half').write_text('')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_folder_once(tmp_path / 'home' / 'folder', fail)
    assert not list((tmp_path / 'home').iterdir())

    def cannot(new):
        new.rmdir()

    with pytest.raises(OSError):
        create_folder_once(tmp_path / 'home' / 'folder', cannot)


@pytest.mark.parametrize('rank', [0, 1])
def test_the_first_of_several_processes_fills_it(tmp_path, monkeypatch, rank):
    "The others look when it is done; on a machine of their own they find nothing, and fill theirs"
    said = []
    monkeypatch.setattr(distributed, 'size', 2), monkeypatch.setattr(distributed, 'rank', rank)
    monkeypatch.setattr(distributed, 'broadcast_from_first', lambda decide: said.append('waited'))
    create_folder_once(tmp_path / 'home' / 'folder', lambda new: said.append('filled'))
    assert said == (['filled', 'waited'] if rank == 0 else ['waited', 'filled'])


def test_a_holdouts_facts_are_found_once(folder, monkeypatch):
    first = load(str(folder), holdout=0.25)
    monkeypatch.setattr(holdout, 'summarize', None)
    again = load(str(folder), holdout=0.25)
    assert (again.mean, again.std, again.fingerprint, again.name) == (
        first.mean,
        first.std,
        first.fingerprint,
        first.name,
    )
    assert (again.train[1] == first.train[1]).all() and (again.valid[0].rows == first.valid[0].rows).all()
    with pytest.raises(TypeError):
        load(str(folder), holdout=0.5)  # another share has facts of its own


def test_facts_are_found_again_where_nothing_can_be_written(tmp_path, monkeypatch):
    found = []

    def find():
        return found.append(1) or dict(n=len(found))

    assert compute_once(tmp_path / 'a.json', find) == compute_once(tmp_path / 'a.json', find) == dict(n=1)
    monkeypatch.setattr('os.access', lambda *_: False)
    assert compute_once(tmp_path / 'b.json', find) == dict(n=2) and not (tmp_path / 'b.json').exists()
