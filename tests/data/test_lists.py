"Lists of images per split: names and labels."

import pytest
from test_image_names import draw, labels_by_image

from kdfast.core.errors import KdfastError
from kdfast.data import load


def write_lists(folder, lines, n_train=4, names=('train', 'test')):
    for name, part in zip(names, (lines[:n_train], lines[n_train:])):
        (folder / f'{name}.txt').write_text('\n'.join(part) + '\n')


DAYS = ['night_001', 'night_002', 'day_003', 'day_004', 'night_005', 'day_006']
CAMERAS = [f'cam{1 + k // 3}/{k:03}' for k in range(6)]
SIXTHS = '010101'


@pytest.mark.parametrize(
    'names,labels,expected,noted',
    [
        (DAYS, SIXTHS, SIXTHS, True),
        (CAMERAS, SIXTHS, SIXTHS, True),
        ([f'images/{k}' for k in range(6)], SIXTHS, SIXTHS, False),
        ([f'{k}' for k in range(6)], ['ape', 'bee'] * 3, ['ape', 'bee'] * 3, False),
        ([f'train/{n}/{n}_{k}' for k, n in enumerate('abab')] + ['test/x_4', 'test/x_5'], SIXTHS, 'ababab', False),
        ([f'{n}/{k}' for k, n in enumerate('ababab')], SIXTHS, 'ababab', False),
        ([f'{n}_{k}' for k, n in enumerate('ababab')], SIXTHS, 'ababab', False),
        ([f'{n}_{k}' for k, n in enumerate('ababab')], [f'{label} 1 1' for label in SIXTHS], 'ababab', False),
        ([f'{n}/{k}' for k, n in enumerate('ababab')], [''] * 6, 'ababab', False),
        ([f'{n}/my {n} {k}' for k, n in enumerate('ababab')], [''] * 6, 'ababab', False),
        ([f'my {n} {k}' for k, n in enumerate('ababab')], SIXTHS, ['my a', 'my b'] * 3, False),
        ([f'a b/my {k}' for k in range(6)], SIXTHS, SIXTHS, False),
        (
            [f'{n}_{k}' for k, n in enumerate('abab')] + ['test_4', 'test_5'],
            ['0', '1', '0', '1', '', ''],
            'abab',
            False,
        ),
        ([f'{k}' for k in range(6)], ['0', '1', '0', '1', '', ''], '0101', False),
    ],
)
@pytest.mark.parametrize('between', [' ', '\t', ','])
def test_the_label_of_a_line(tmp_path, names, labels, expected, noted, between):
    files = [f'{name}.png' for name in names]
    draw(tmp_path, *files)
    write_lists(tmp_path, [f'{file}{between if label else ""}{label}' for file, label in zip(files, labels)])
    found = load(str(tmp_path), holdout=0.5 if len(expected) == 4 else 0.0)
    assert labels_by_image(found) == dict(enumerate(expected))
    assert any(note.startswith('labels by the lists') for note in found.notes) == noted
    assert len(found.valid[1]) == 2


@pytest.mark.parametrize(
    'lines,message',
    [
        ([f'{k}.png golden retriever' for k in range(6)], 'train.txt, line 1: 2 words after 0.png: expected one'),
        ([f'{k}.png {"ape" if k != 2 else ""}' for k in range(6)], 'train.txt, line 3: 2.png has no class'),
        ([f'{k}.png' for k in range(6)], 'train.txt, line 1: 0.png has no class'),
        (['0.png 0', 'my 7.png 1', *(f'{k}.png {k % 2}' for k in range(2, 6))], 'there is no file my 7.png'),
        (
            ['0.png 0', '7.png 1', *(f'{k}.png {k % 2}' for k in range(2, 6))],
            'train.txt, line 2: there is no file 7.png',
        ),
        (['0.png 0', '0.png 1', *(f'{k}.png {k % 2}' for k in range(2, 6))], 'line 2: 0.png is also in train.txt'),
    ],
)
def test_errors_of_lists_name_the_line(tmp_path, lines, message):
    draw(tmp_path, *(f'{k}.png' for k in range(6)))
    write_lists(tmp_path, lines)
    with pytest.raises(KdfastError) as e:
        load(str(tmp_path))
    assert message in e.value.message
