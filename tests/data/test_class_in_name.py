"Images of all classes in one folder: the error says what their names begin with, and what it says to do works."

import numpy as np
import pytest
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data import load


def draw(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            folder / f'{name}.png'
        )


FORMS = ['{}.{}', '{}_{:03}', '{} ({})', '{}{}', 'great_{}_{}']


@pytest.mark.parametrize('tests', [None, 'test/{}', 'test/test_{}'])
@pytest.mark.parametrize('folder', ['.', 'train', 'data/images'])
@pytest.mark.parametrize('form', FORMS)
def test_classes_in_names_are_named_in_the_error(tmp_path, form, folder, tests):
    classes = [form[: form.index('{')] + name for name in ('cat', 'dog')]
    names = [form.format(name, i) for name in ('cat', 'dog') for i in range(6)]
    draw(tmp_path / 'pets' / folder, names)
    for i in range(4) if tests else ():
        draw((tmp_path / 'pets' / tests).parent, [tests.rpartition('/')[2].format(i)])
    with pytest.raises(KdfastError) as e:
        load(str(tmp_path / 'pets'))
    assert f'the names of the images begin with {", ".join(classes)}: if these are the classes' in e.value.message
    rows = [f'{name}.png,{name[: len(classes[0])]}' for name in names]
    (tmp_path / 'pets' / 'labels.csv').write_text('\n'.join(['image,label', *rows]))
    assert load(str(tmp_path / 'pets')).classes == classes


@pytest.mark.parametrize(
    'names',
    [
        [f'IMG_{i}' for i in range(12)],
        [f'{i}' for i in range(12)],
        [f'{word}_1' for word in 'ant bee cow dog eel fly gnu hen ibex jay'.split()],
        [f'{word}_{i}' for word in 'ant bee cow dog eel fly gnu hen ibex jay'.split() for i in (1, 2)],
    ],
)
def test_other_names_are_not(tmp_path, names):
    draw(tmp_path / 'pets', names)
    with pytest.raises(KdfastError, match='no folder of a class') as e:
        load(str(tmp_path / 'pets'))
    assert 'begin with' not in e.value.message
