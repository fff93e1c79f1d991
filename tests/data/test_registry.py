"Layouts are found by being in their folder, and tried in a fixed order."

import subprocess
import sys

import pytest

from kdfast.data import layouts, load
from kdfast.data.layouts import registry

ORDER = ['parquet', 'webdataset', 'arrays', 'cifar', 'binary', 'matlab', 'tiny_imagenet', 'lists', 'table', 'folders']


@pytest.fixture
def reset_layouts():
    yield
    sys.modules.pop('kdfast.data.layouts.a_words', None)
    registry.all_layouts.cache_clear()


def names():
    return [layout.__name__.rpartition('.')[2] for layout in registry.all_layouts()]


def test_layouts_are_tried_in_the_documented_order():
    assert names() == ORDER
    priorities = [layout.PRIORITY for layout in registry.all_layouts()]
    assert priorities == sorted(set(priorities))


NEW_LAYOUT = '''
"Images whose class is the first word of their name."

from kdfast.data.layouts.base import Item, Listing

{priority}

def matches(source):
    return bool(source.images) and all('_' in name for name in source.images)


def read(source):
    return Listing('words', [Item(name, None, name.partition('_')[0], source.files[name]) for name in source.images])
'''


@pytest.mark.parametrize(
    'priority,before', [('', 'binary'), ('PRIORITY = 5', 'parquet'), ('PRIORITY = 75', 'table')], ids=['50', '5', '75']
)
def test_a_module_in_the_folder_is_a_layout(tmp_path, monkeypatch, reset_layouts, priority, before):
    from samples import TRAIN, all_images, find_difference, to_folder, writer

    (tmp_path / 'extra').mkdir()
    (tmp_path / 'extra' / 'a_words.py').write_text(NEW_LAYOUT.format(priority=priority))
    monkeypatch.setattr(layouts, '__path__', [*layouts.__path__, str(tmp_path / 'extra')])
    registry.all_layouts.cache_clear()
    assert names().index('a_words') == ORDER.index(before)
    images = all_images(TRAIN)
    files = {f'{["ape", "bee", "cat"][label]}_{i}.png': writer('PNG')(image) for _, label, i, image in images}
    data = load(str(to_folder(tmp_path / 'photos', files)))
    assert not find_difference(data, TRAIN) and data.about['layout'] == 'words'


def test_reading_a_folder_imports_no_torch_and_no_pyarrow():
    code = (
        'import sys; from kdfast.data.layouts.registry import all_layouts; all_layouts();'
        'print([name for name in ("torch", "fastai", "pyarrow", "scipy") if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
