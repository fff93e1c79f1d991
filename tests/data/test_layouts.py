"Every layout, container and format is read; others are rejected with cause and remedy."

import pytest
import samples

from kdfast.core.errors import KdfastError
from kdfast.data import load


@pytest.mark.parametrize('layout', samples.LAYOUTS)
def test_every_layout_is_read(layout, tmp_path):
    assert not samples.layout_difference(
        load(str(samples.to_folder(tmp_path / 'photos', samples.layout_files(layout, 'PNG')))), layout, 'PNG'
    )


@pytest.mark.parametrize('container', samples.CONTAINERS)
@pytest.mark.parametrize('layout', ['class', 'train, valid, test', 'labels.csv'])
def test_every_container_is_read(container, layout, tmp_path):
    assert not samples.layout_difference(
        load(str(samples.CONTAINERS[container](tmp_path / 'photos', samples.layout_files(layout, 'PNG')))),
        layout,
        'PNG',
    )


@pytest.mark.parametrize('kind', samples.FORMATS)
def test_every_format_is_read(kind, tmp_path):
    assert not samples.layout_difference(
        load(str(samples.to_folder(tmp_path / 'photos', samples.layout_files('class', kind)))), 'class', kind
    )


@pytest.mark.parametrize('name', samples.SOURCES)
def test_every_official_source_is_read(name, tmp_path):
    make, splits, how = samples.SOURCES[name]
    for put in (samples.to_folder, lambda path, files: samples.to_tar(path, files, 'gz')):
        assert not samples.find_difference(load(str(put(tmp_path / 'photos', make()))), splits, **how)


@pytest.mark.parametrize('name', samples.ARRAYS)
def test_arrays_are_read(name, tmp_path):
    make, splits = samples.ARRAYS[name]
    assert not samples.find_difference(
        load(str(next(samples.to_folder(tmp_path, make()).glob('*.npz')))), splits, classes=['0', '1', '2']
    )


@pytest.mark.parametrize('name', samples.REJECTED)
def test_rejected_data_gives_cause_and_remedy(name, tmp_path):
    files, words = samples.REJECTED[name]
    with pytest.raises(KdfastError) as e:
        load(str(samples.to_folder(tmp_path / 'photos', files())))
    assert not [word for word in words if word not in e.value.message], e.value.message
