"Find which arrays hold images and which hold their labels, by their names."

import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.split_files import check_named
from kdfast.data.layouts.splits import note_joined, split_of, splits_of_files, take_apart

# Words in the names of arrays, by what the array holds; image_labels.npy holds labels
ROLE_WORDS = dict(
    labels={'labels', 'label', 'y', 'targets', 'target', 'class', 'classes'},
    images={'images', 'image', 'imgs', 'img', 'x', 'data', 'pixels'},
)
WORD = re.compile(r'[A-Z](?![a-z])|[A-Z]?[a-z]+|\d+')  # train_images, x_train, trainX
UNNAMED = {'arr_0': 'images', 'arr_1': 'labels'}  # names that numpy.savez(file, images, labels) gives
COLUMN_OF_ROLE = dict(images='name', labels='label')  # in --columns


class Array(NamedTuple):
    "An array, by its name."

    name: str  # In the source
    folder: str
    words: tuple[str, ...]  # Of the file name, without numbers
    numbers: tuple[int, ...]  # Of the file name


def has_pair(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there is an array of images beside one of labels."
    return any(roles.keys() == ROLE_WORDS.keys() for roles in _by_split_and_folder(source).values())


def find_pairs(
    source: Source,  # Files of the data set
) -> dict[str | None, list[tuple[str, str]]]:
    """Return the names of (images, labels) by split; the split is None if the names do not contain one.

    Arrays that differ in a number alone are parts, in the order of the numbers. Adds a note on arrays that are no pair.
    Raises KdfastError if several arrays may hold the same.
    """
    pairs, folders, used = {}, {}, set()
    check_named(splits_of_files(_array_names(source)), source.path)
    for (split, folder), roles in _by_split_and_folder(source).items():
        if roles.keys() != ROLE_WORDS.keys():
            continue
        if split in pairs:
            raise KdfastError(
                f'{source.path}: found {split or "images"} in the folders {folders[split]} and {folder}: '
                'pass the path of one of them'
            )
        chosen = {role: _chosen(source, role, arrays) for role, arrays in roles.items()}
        folders[split], pairs[split] = folder, _paired(source, chosen['images'], chosen['labels'])
        used |= {name for pair in pairs[split] for name in pair}
    note_joined({name: split for split, parts in pairs.items() for pair in parts for name in pair}, source.notes)
    unlabeled = _test_images_alone(source, pairs)
    for name in _array_names(source):
        if name in unlabeled:
            source.notes.add('skipped, test images without labels', name)
        elif name not in used:
            source.notes.add('skipped, arrays that are no pair of images and labels', name)
    return pairs


def _test_images_alone(source, pairs):
    "Names of arrays of test images without labels, called like those with labels. Raises KdfastError for validation"

    def other_words(name):
        return [word for word in _words(PurePosixPath(name).stem) if not word.isdigit() and not split_of(word)]

    alike = [other_words(images) for parts in pairs.values() for images, _ in parts]
    alone = defaultdict(list)
    for (split, _), roles in _by_split_and_folder(source).items():
        if roles.keys() == {'images'} and split not in pairs:
            alone[split] += [array.name for array in roles['images'] if other_words(array.name) in alike]
    if alone['valid']:
        raise KdfastError(
            f'{source.path}: no validation image has a label (such as those in {alone["valid"][0]}): label them, or '
            'leave them out'
        )
    return alone['test']


def _array_names(source):
    return [name for name in source.files if name.lower().endswith('.npy')]


def _by_split_and_folder(source):
    "Arrays by role, by (split, folder)"
    found, splits = {}, splits_of_files(_array_names(source))
    for name in splits:
        path = PurePosixPath(name)
        words = _words(UNNAMED.get(path.stem, path.stem))
        texts = tuple(word for word in words if not word.isdigit())
        role = next((role for role, role_words in ROLE_WORDS.items() if role_words & set(texts)), None)
        if role:
            numbers = tuple(int(word) for word in words if word.isdigit())
            array = Array(name, path.parent.as_posix(), texts, numbers)
            split = next(filter(None, map(split_of, texts)), splits[name])
            found.setdefault((split, array.folder), {}).setdefault(role, []).append(array)
    return found


def _words(name):
    return [part for word in WORD.findall(name) for part in _role_and_split(word.lower())]


def _role_and_split(word):
    "The parts of a word that joins those of a role and a split (xtrain, trainlabels); else the word itself"
    if any(word in role_words for role_words in ROLE_WORDS.values()):
        return (word,)
    named = (pair for pair in take_apart(word) if any(pair[0] in role_words for role_words in ROLE_WORDS.values()))
    return next(named, (word,))


def _chosen(source, role, arrays):
    "The arrays of a role that the user chose, else all. Raises KdfastError if they differ in more than numbers"
    wanted = source.columns.get(COLUMN_OF_ROLE[role])
    names = listed([array.name for array in arrays])
    if wanted:
        arrays = [array for array in arrays if set(_words(wanted)) <= {*array.words, *map(str, array.numbers)}]
    if not arrays:
        raise KdfastError(f'{source.path}: no array of {role} is called {wanted}: found {names}')
    if len({array.words for array in arrays}) > 1:
        example = PurePosixPath(arrays[-1].name).stem
        raise KdfastError(
            f'{source.path}: found several arrays of {role}, {listed([array.name for array in arrays])}: '
            f'choose with --columns {COLUMN_OF_ROLE[role]}={example}'
        )
    return sorted(arrays, key=lambda array: array.numbers)


def _paired(source, images, labels):
    "Names of images and labels of the same part. Raises KdfastError for a part without the other"
    if len(images) == len(labels) == 1:
        return [(images[0].name, labels[0].name)]
    images, labels = _by_part(images), _by_part(labels)
    for found, others, missing in ((images, labels, 'labels'), (labels, images, 'images')):
        alone = [array.name for part, array in found.items() if part not in others]
        if alone:
            raise KdfastError(
                f'{source.path}: found no {missing} of {listed(alone)}: '
                'expected an array of images and one of labels with the same number'
            )
    return [(images[part].name, labels[part].name) for part in images]


def _by_part(arrays):
    "Arrays by those of their numbers that are not the same in all of them"
    if len(arrays) == 1 or len({len(array.numbers) for array in arrays}) > 1:
        return {array.numbers: array for array in arrays}
    differ = [len(set(column)) > 1 for column in zip(*(array.numbers for array in arrays))]
    return {tuple(n for n, d in zip(array.numbers, differ) if d): array for array in arrays}
