import multiprocessing

import pytest
from conftest import make
from kdfast.errors import KdfastError
from kdfast.runs import find, write


def test_files_are_written_whole_and_leave_nothing_else(tmp_path):
    write(tmp_path/'a', 'old')
    with pytest.raises(TypeError): write(tmp_path/'a', 5)
    assert (tmp_path/'a').read_text() == 'old' and [f.name for f in tmp_path.iterdir()] == ['a']
    write(tmp_path/'a', 'new')
    assert (tmp_path/'a').read_text() == 'new' and [f.name for f in tmp_path.iterdir()] == ['a']


def write_often(file, letter):
    for _ in range(60): write(file, letter*100_000)


def test_two_processes_may_write_one_file(tmp_path):
    writers = [multiprocessing.get_context('spawn').Process(target=write_often, args=(tmp_path/'a', letter)) for letter in 'xy']
    for writer in writers: writer.start()
    for writer in writers: writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and (tmp_path/'a').read_text() in ('x'*100_000, 'y'*100_000)


def test_find(tmp_path):
    one,two = make(tmp_path, 'kd', 3),make(tmp_path, 'kd', 5)
    assert find(tmp_path, 'kd').path == one.path and find(tmp_path, 'kd', seed=5).path == two.path == find(tmp_path, str(two)).path
    with pytest.raises(KdfastError, match='no finished run exp1 .*; there are kd'): find(tmp_path, 'exp1')
    make(tmp_path, 'kd', 0, data='zoo')
    with pytest.raises(KdfastError, match='ran on pets, zoo: choose one with --data'): find(tmp_path, 'kd')
