"Every file of official data sets, of arrays and of shards is damaged in turn: it is named, and nothing is lost unsaid."

import re
from functools import cache
from pathlib import Path

import pytest
import samples

from kdfast.core.errors import KdfastError
from kdfast.data import load

HTML = b'<!DOCTYPE html>\n<html>\n<head><title>404</title></head>\n<body>\nNot found\n</body>\n</html>\n'
NUMBERED = ['0', '1', '2']


def removed(content):
    return None


DAMAGES = {
    'without its last byte': lambda content: content[:-1],
    'half': lambda content: content[: len(content) // 2 + 2],
    'empty': lambda content: b'',
    'a web page': lambda content: HTML,
    'zeros': lambda content: bytes(len(content)),
    'removed': removed,
}


def arrays():
    "Arrays of two splits, in folders and in parts"
    import numpy as np

    files = {}
    for split in samples.BOTH:
        images, labels = (np.stack(values) for values in samples.images_and_labels(split))
        for part in range(2):
            files[f'{split}/images_{part}.npy'] = samples.array_bytes(images[part::2])
            files[f'{split}/labels_{part}.npy'] = samples.array_bytes(labels[part::2])
    return files


# name: files, splits, arguments of find_difference
FORMS = samples.SOURCES | {'.npy in folders': (arrays, samples.BOTH, dict(classes=NUMBERED))}
FORMS |= {name: (make, splits, dict(classes=NUMBERED)) for name, (make, splits) in samples.ARRAYS.items()}


@cache
def files_of(form):
    return FORMS[form][0]()


def shows(form, name, damage):
    "Whether a damage shows in a file: not black images, or a shorter name; lists of images have tests of their own"
    if name.endswith('.jpg') or form in ('Food-101', 'Oxford-IIIT Pet', 'Parquet, three splits'):
        return False
    if form == 'Tiny ImageNet' and damage == 'removed' and not name.endswith('val_annotations.txt'):
        return False  # one image of many, or names, of which test_tiny_imagenet.py has tests
    if damage == 'zeros' and name.endswith('_X.bin') or damage == 'without its last byte' and name.endswith('.txt'):
        return False
    return damage != 'removed' or len(files_of(form)) > 1


CASES = [
    (form, name, damage) for form in FORMS for name in files_of(form) for damage in DAMAGES if shows(form, name, damage)
]


def problem_of(data, form, name, damage):
    "What is wrong with a data set that was read; empty if nothing is missing, or a note tells it"
    _, splits, how = FORMS[form]
    if damage == 'removed' and re.search('valid|test|t10k', name):  # all images of a split, which is optional
        splits = samples.TRAIN
    if damage == 'removed' and any(Path(name).name in note for note in data.notes):  # the names of the classes
        how = how | dict(classes=NUMBERED)
    return samples.find_difference(data, splits, **how)


@pytest.mark.parametrize('form,name,damage', CASES)
def test_a_damaged_file_is_named(form, name, damage, tmp_path):
    files = dict(files_of(form))
    content = DAMAGES[damage](files.pop(name))
    if content is not None:
        files[name] = content
    path = samples.to_folder(tmp_path / 'set', files)
    if form in samples.ARRAYS:
        path = path / name
    try:
        data = load(str(path))
    except KdfastError as e:
        assert any(word in e.message for word in words_of(name, damage)), e.message
    else:
        assert not problem_of(data, form, name, damage)


def words_of(name, damage):
    "What a message has to name: the file; or the array that has lost its partner, or the split that has lost its shard"
    words = [Path(name).name]
    if damage == 'removed' and name.endswith('.npy'):
        words.append(re.sub('images|labels', lambda match: dict(images='labels', labels='images')[match[0]], name))
    if damage == 'removed' and name.endswith(('.parquet', '.arrow', '.tar')):
        words.append('none to train on: expected a folder or split train')
    return words
