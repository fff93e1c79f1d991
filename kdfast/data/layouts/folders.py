"Folders whose names are classes: with splits, without, split by class, and with one folder too many."

from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.data.archives import folders_of
from kdfast.data.formats import remedy
from kdfast.data.layouts.base import BESIDE, Item, Listing, Source, split_of, tables

EXPECTED = (
    'expected <class>/<image>, train/<class>/<image> beside valid/ or test/, '
    'or a table of names and labels (docs/data.md)'
)


def matches(source: Source) -> bool:
    return True


def read(source: Source) -> Listing:
    images = images_of(source)
    found, layout = by_split(images), 'folders of classes in folders of splits'
    if found:
        refuse_empty(source, found)
    else:
        found, layout = by_class_and_split(images), 'folders of splits in folders of classes'
    if not found:
        found, layout = by_class(source, images), 'folders of classes'
    return listing(source, images, found, layout)


def images_of(source):
    "The parts of the path of every image; what is no image is noted. Raises KdfastError where there is none"
    others = sorted(source.files.keys() - set(source.images))
    if not source.images:
        raise KdfastError(no_images(source, others))
    for name in others:
        source.notes.add('left out, not images', name)
    return [PurePosixPath(name).parts for name in source.images]


def no_images(source, others):
    "What stands there instead of images"
    suffixes = Counter(PurePosixPath(name).suffix.lower() or 'no suffix' for name in others)
    kinds = [
        f'{n:,} × {suffix}' + (f' ({remedy(suffix)})' if remedy(suffix) else '')
        for suffix, n in suffixes.most_common(3)
    ]
    return (
        f'{source.path}: found no images'
        + (f', but {", ".join(kinds)}' if kinds else ', it is empty' if not source.files else '')
        + f'; {EXPECTED}'
    )


class Place(NamedTuple):
    "Where an image lies."

    split: str | None
    label: str
    depth: int  # Which part of its path is the folder of the class


def by_split(images):
    "Where the images lie that have a folder <split>/<class>/, by their paths; nothing where none has"
    roots = defaultdict(dict)
    for parts in images:
        at = next((i for i, part in enumerate(parts[:-2]) if split_of(part)), None)
        if at is None:
            continue
        root, split = parts[:at], split_of(parts[at])
        while at + 3 < len(parts) and (split_of(parts[at + 1]) == split or parts[at + 1].lower() in BESIDE):
            at += 1  # seg_train/seg_train/<class>/ or train/images/<class>/
        roots[root][parts] = Place(split, parts[at + 1], at + 1)
    whole = [root for root, found in roots.items() if {'train'} < {place.split for place in found.values()}]
    if whole:
        return roots[min(whole, key=lambda root: (len(root), -len(roots[root])))]
    found = {parts: place for those in roots.values() for parts, place in those.items()}  # a/train beside b/test
    if {place.split for place in found.values()} != {'train'}:
        return found
    return {} if any(is_a_class(root, those, images) for root, those in roots.items()) else found


def is_a_class(root, found, images):
    "Whether train is the name of a class: others with folders of their own lie beside it, and not the same folders"
    inside, beside = {place.label for place in found.values()}, defaultdict(set)
    for parts in images:
        name, *below = parts[len(root) :]
        if parts[: len(root)] == root and parts not in found and len(below) > 1:
            beside[name].add(below[0])
    return any(not split_of(name) and not folders & inside for name, folders in beside.items())


def refuse_empty(source, found):
    "Raise KdfastError for the folder of a class without any image to train on"
    used = {parts[: place.depth + 1] for parts, place in found.items()}
    trains = {parts[: place.depth] for parts, place in found.items() if place.split == 'train'}
    there = [(*train, name) for train in sorted(trains) for name in folders_of(source.path.joinpath(*train), 1)]
    empty = ['/'.join(folder) for folder in there if folder not in used]
    if empty:
        raise KdfastError(f'{source.path}: no images in {listed(empty)}: fill or remove')


def by_class_and_split(images):
    "Where the images lie if all of them have a folder <class>/<split>/"
    found = {
        parts: Place(split_of(parts[-2]), parts[-3], len(parts) - 3)
        for parts in images
        if len(parts) > 2 and split_of(parts[-2])
    }
    return found if len(found) == len(images) and len({place.label for place in found.values()}) > 1 else {}


def by_class(source, images):
    "Where the images lie in folders of classes: those of the first folder that holds several"
    top = ()
    while True:
        below = [parts for parts in images if parts[: len(top)] == top and len(parts) > len(top) + 1]
        first = {parts[len(top)] for parts in below}
        if len(first) != 1 or not any(len(parts) > len(top) + 2 for parts in below):
            break
        top += tuple(first)
    depth = len(top)
    found = {
        parts: Place(None, parts[depth], depth)
        for parts in below
        if len(parts) > depth + 2 or split_of(parts[depth]) not in ('valid', 'test')
    }
    if found:
        return found  # without what test/ holds beside folders of classes: images that nobody has labelled
    raise KdfastError(
        f'{source.path}: found {len(images):,} images, but no folder of a class, such as '
        f'{"/".join(images[0])}{tables(source)}; {EXPECTED}'
    )


def listing(source, images, found, layout):
    "In the order of the source; what lies elsewhere is noted"
    items = []
    for parts in images:
        name = '/'.join(parts)
        if parts not in found:
            source.notes.add('left out, in no folder of a class', name)
        else:
            split, label, depth = found[parts]
            items.append(Item(name, split, label, source.files[name]))
            if len(parts) > depth + 2 and not split_of(parts[-2]):
                source.notes.add('in folders below that of their class', name)
    return Listing(layout, items)
