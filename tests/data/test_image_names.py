"Names in tables and lists mean the image that they name, and no other of the same file name."

import numpy as np
import pytest
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data import load


def draw(folder, *names):
    "Image k has the value 10 k everywhere"
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * k, np.uint8)).save(folder / name)


def write_table(folder, cells):
    "Labels alternate"
    rows = [f'{cell},{"cat" if k % 2 else "dog"}' for k, cell in enumerate(cells)]
    (folder / 'labels.csv').write_text('\n'.join(['name,label', *rows]))


def labels_by_image(data):
    "{k: class} of images that `draw` drew"
    parts = [part for part in (data.train, data.valid, data.test) if part is not None and len(part[1])]
    return {
        int(pixels[0, 0, 0]) // 10: data.classes[label]
        for images, labels in parts
        for pixels, label in zip(images[:], labels)
    }


ALTERNATE = ['dog', 'cat'] * 3


@pytest.mark.parametrize(
    'form', ['{}', './{}', 'pets/{}', '/home/ann/pets/{}', 'D:\\pets\\{}', '{folder}/{}'], ids=range(6)
)
@pytest.mark.parametrize(
    'cells,elsewhere,missing',
    [
        ([f'train/{k}.png' for k in range(6)], 'test/0.png', 'train/0.png'),
        ([f'a/x/{k}.png' for k in range(6)], 'b/x/0.png', 'a/x/0.png'),
        ([f'{folder}/{k}.png' for folder in 'ab' for k in range(3)], None, 'b/0.png'),  # b/ was not downloaded
        ([f'a/{k}.png' for k in range(5)] + ['b/5.png'], '5.png', 'b/5.png'),
        ([f'a/{k}.png' for k in range(5)] + ['b/5.png'], 'a/5.png', 'b/5.png'),
    ],
)
def test_an_image_in_another_folder_is_not_the_one_that_is_missing(tmp_path, cells, elsewhere, missing, form):
    gone = missing.split('/')[0] if not elsewhere else missing
    draw(tmp_path, *(cell for cell in cells if not cell.startswith(gone)), *filter(None, [elsewhere]))
    write_table(tmp_path, [form.format(cell, folder=tmp_path) for cell in cells])
    with pytest.raises(KdfastError, match='line .*(there is no file|is outside the folder)') as e:
        load(str(tmp_path))
    assert 'twice' not in e.value.message


@pytest.mark.parametrize(
    'files,cells',
    [
        ('images/train/{}.png', 'train/{}.png'),
        ('train/{}.png', 'images/train/{}.png'),
        ('{}.png', 'images/train/{}.png'),
        ('Images/{}.png', 'images/{}'),
        ('a{odd}/{}.png', '{}'),
        ('a{odd}/{}.png', '/home/ann/all/{}.png'),
        ('{odd}/{}.png', '/disk{odd}/pets/{odd}/{}.png'),
        ('{}.png', '{odd}/{}.png'),
    ],
)
def test_folders_in_front_may_differ(tmp_path, files, cells):
    draw(tmp_path, *(files.format(k, odd=k % 2) for k in range(6)))
    write_table(tmp_path, [cells.format(k, odd=k % 2) for k in range(6)])
    assert labels_by_image(load(str(tmp_path))) == dict(enumerate(ALTERNATE))
