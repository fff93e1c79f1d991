"A list of images for each split beside folders of classes: Food-101, DTD, Oxford-IIIT Pet, lists of ImageNet."

import re
from pathlib import PurePosixPath

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.base import Item, Listing, Source, split_of
from kdfast.data.layouts.rows import read_lines
from kdfast.data.layouts.table import Images

LOOKED_AT = 20  # lines


def matches(source: Source) -> bool:
    "Whether there are lists of splits, which name images"
    lists = lists_of(source)
    if 'train' not in lists or not lists.keys() & {'valid', 'test'} or source.columns or source.table:
        return False
    return bool(named(source, lists['train']))


def lists_of(source):
    "The list of each split: train.txt before train2.txt"
    found = {}
    for name in sorted(
        source.files, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]
    ):
        path = PurePosixPath(name)
        split = path.suffix.lower() in ('.txt', '.lst') and split_of(re.sub(r'\d', '', path.stem))
        if split:
            found.setdefault(split, name)
    return found


def named(source, name):
    images, lines = Images(source), read_lines(f'{source.path}/{name}', source.files[name])
    return [line for _, line in lines[:LOOKED_AT] if images.find(line.split()[0])]


def read(source: Source) -> Listing:
    images, items, seen = Images(source), [], {}
    order = {name: i for i, name in enumerate(source.images)}
    for split, file in lists_of(source).items():
        for number, line in read_lines(f'{source.path}/{file}', source.files[file]):
            word, *rest = line.split()
            name = images.find(word)
            if not name:
                raise KdfastError(f'{source.path}/{file}, line {number}: there is no image {word}')
            if name in seen:
                raise KdfastError(f'{source.path}/{file}, line {number}: {name} is also in {seen[name]}')
            seen[name] = file
            items.append(Item(name, split, label_of(name, word, rest, source, file, number), source.files[name]))
    for name in source.images:
        if name not in seen:
            source.notes.add('left out, in no list', name)
    return Listing(
        f'lists of images ({", ".join(sorted(set(seen.values())))})', sorted(items, key=lambda item: order[item.name])
    )


def label_of(name, word, rest, source, file, number):
    "Of a line: its second word; else the folder; else the name of the file up to its number"
    folder = PurePosixPath(word).parent.name
    if folder and not split_of(folder):
        return folder
    by_file = re.fullmatch(r'(.*?)[_-]?\d+', PurePosixPath(name).stem)
    if by_file and by_file[1] and rest:
        return by_file[1]  # Abyssinian_100, as of the pets
    if rest:
        return rest[0]
    raise KdfastError(
        f'{source.path}/{file}, line {number}: {word} has no class: expected its folder, or a second word'
    )
