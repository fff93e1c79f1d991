"Lists of images per split beside folders of classes: Food-101, DTD, Oxford-IIIT Pet, ImageNet."

import re
from pathlib import PurePosixPath

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.base import Item, Listing, Source, split_of
from kdfast.data.layouts.image_index import ImageIndex
from kdfast.data.layouts.rows import read_lines

PRIORITY = 70  # before tables and folders: images/<class>/ beside the lists has no splits
N_TESTED = 20  # lines that are tested for names of images


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there are lists of a training and another split that name images."
    lists = _lists_by_split(source)
    if 'train' not in lists or not lists.keys() & {'valid', 'test'} or source.columns or source.table:
        return False
    index = ImageIndex(source)
    lines = read_lines(f'{source.path}/{lists["train"]}', source.files[lists['train']])
    return any(index.find(line.split()[0]) for _, line in lines[:N_TESTED])


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images in the order of the source. Raises KdfastError for missing and repeated images."
    index, items, list_of_image = ImageIndex(source), [], {}
    position = {name: i for i, name in enumerate(source.images)}
    for split, file in _lists_by_split(source).items():
        for number, line in read_lines(f'{source.path}/{file}', source.files[file]):
            where = f'{source.path}/{file}, line {number}'
            word, *rest = line.split()
            name = index.find(word)
            if not name:
                raise KdfastError(f'{where}: there is no image {word}')
            if name in list_of_image:
                raise KdfastError(f'{where}: {name} is also in {list_of_image[name]}')
            list_of_image[name] = file
            items.append(Item(name, split, _class_of(name, word, rest, where), source.files[name]))
    for name in source.images:
        if name not in list_of_image:
            source.notes.add('skipped, in no list', name)
    lists = ', '.join(sorted(set(list_of_image.values())))
    return Listing(f'lists of images ({lists})', sorted(items, key=lambda item: position[item.name]))


def _lists_by_split(source):
    "The list of each split: train.txt before train2.txt, train2.txt before train10.txt"

    def natural_order(name):
        return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]

    lists = {}
    found = [name for name in source.files if name.lower().endswith(('.txt', '.lst'))]
    for name in sorted(found, key=natural_order):
        split = split_of(re.sub(r'\d', '', PurePosixPath(name).stem))
        if split:
            lists.setdefault(split, name)
    return lists


def _class_of(name, word, rest, where):
    "The class of a line: the folder; else the file name up to its number; else the second word"
    folder = PurePosixPath(word).parent.name
    if folder and not split_of(folder):
        return folder
    numbered = re.fullmatch(r'(.*?)[_-]?\d+', PurePosixPath(name).stem)
    if numbered and numbered[1] and rest:
        return numbered[1]  # Abyssinian_100 in Oxford-IIIT Pet
    if rest:
        return rest[0]
    raise KdfastError(f'{where}: {word} has no class: expected a folder named after it, or a second word')
