"Folders named after classes, with folders of splits above them, below them, or not at all."

from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.data.files import list_folders
from kdfast.data.formats import describe_suffix
from kdfast.data.layouts.base import Item, Listing, Source, names_hint, table_hint
from kdfast.data.layouts.folder_splits import (
    check_classes,
    check_inner,
    check_unlike,
    note_named_like_splits,
    note_together,
    without_outer,
    without_unions,
)
from kdfast.data.layouts.folds import IF_CLASSES, check_fold_folders, check_folds
from kdfast.data.layouts.lists import check_no_lists
from kdfast.data.layouts.splits import FILLER_WORDS, find_folder_splits, note_joined, split_of

PRIORITY = 90  # last: matches everything, and explains what is expected where it finds no classes
BY_SPLIT = 'folders of classes in folders of splits'
EXPECTED = (
    'expected <class>/<image>, train/<class>/<image> beside valid/ or test/, '
    'or a table of names and labels (docs/data.md)'
)


class Place(NamedTuple):
    "Split and class of an image, by its path."

    split: str | None
    label: str
    depth: int  # Index of the class folder in the parts of the path


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return True: folders of classes are the last layout to try."
    return True


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images by their folders. Raises KdfastError without images or folders of classes."
    images = _image_paths(source)
    check_folds(source, images)
    splits = without_outer(find_folder_splits(images), images)
    images = without_unions(source, images, splits)
    places, layout = _split_then_class(images, splits), BY_SPLIT
    if places:
        check_inner(source, places, splits)
        _check_empty_classes(source, places)
    else:
        places, layout = _class_then_split(source, images, splits), 'folders of splits in folders of classes'
    if not places:
        places, layout = _class_only(source, images, splits), 'folders of classes'
        splits = {}  # folders below classes are parts of these
    if layout != BY_SPLIT:
        _note_empty_folders(source, images, places)
    used = {parts[:n] for parts in places for n in range(1, len(parts))}
    check_fold_folders(used & splits.keys(), source.path)
    if layout == BY_SPLIT:
        labels = defaultdict(set)
        for place in places.values():
            labels[place.split].add(place.label)
        check_classes(source, labels, sorted(used & splits.keys()))
        note_named_like_splits(source, labels)
        note_together(source, {folder: splits[folder] for folder in used & splits.keys()})
    joined = {'/'.join(folder): splits[folder] for folder in sorted(used & splits.keys())}
    note_joined(joined, source.notes, 'rename them, or put folders of classes into a folder train/')
    return _listing(source, images, places, layout, splits)


def _image_paths(source):
    "The parts of the path of every image; adds a note on other files. Raises KdfastError"
    others = sorted(source.files.keys() - set(source.images))
    if not source.images:
        raise KdfastError(_no_images_message(source, others))
    for name in others:
        source.notes.add('skipped, not images', name)
    return [PurePosixPath(name).parts for name in source.images]


def _no_images_message(source, others):
    "The error for a source without images: what it holds instead"
    suffixes = Counter(PurePosixPath(name).suffix.lower() or 'no suffix' for name in others)
    kinds = [
        f'{n:,} × {suffix}' + (f' ({describe_suffix(suffix)})' if describe_suffix(suffix) else '')
        for suffix, n in suffixes.most_common(3)
    ]
    found = ''
    if kinds:
        found = f', but {", ".join(kinds)}'
    elif not source.files:
        found = ', it is empty'
    return f'{source.path}: found no images{found}; {EXPECTED}'


def _split_then_class(images, splits):
    "Places of the images below <split>/<class>/, by path; empty if there are none"
    roots = defaultdict(dict)
    for parts in images:
        at = next((i for i in range(len(parts) - 2) if parts[: i + 1] in splits), None)
        if at is None:
            continue
        root, split = parts[:at], splits[parts[: at + 1]]
        while at + 3 < len(parts) and (splits.get(parts[: at + 2]) == split or parts[at + 1].lower() in FILLER_WORDS):
            at += 1  # seg_train/seg_train/<class>/ or train/images/<class>/
        if split != 'train' and splits.get(parts[: at + 2]) == split:
            continue  # test/test/<image> has no label
        roots[root][parts] = Place(split, parts[at + 1], at + 1)
    roots = {root: _without_unlabeled(places) for root, places in roots.items()}
    complete = [root for root, places in roots.items() if {'train'} < {place.split for place in places.values()}]
    if complete:
        return roots[min(complete, key=lambda root: (len(root), -len(roots[root])))]
    merged = {parts: place for places in roots.values() for parts, place in places.items()}  # a/train beside b/test
    if {place.split for place in merged.values()} != {'train'}:
        return merged
    return {} if any(_train_is_a_class(root, places, images, splits) for root, places in roots.items()) else merged


def _without_unlabeled(places):
    "The places without test/images/<image>, unless images is a class of the training images"
    train = {place.label for place in places.values() if place.split == 'train'}
    if not train:
        return places
    return {
        parts: place
        for parts, place in places.items()
        if place.split != 'test' or place.label in train or place.label.lower() not in FILLER_WORDS
    }


def _train_is_a_class(root, places, images, splits):
    "Whether train is the name of a class: folders beside it have other folders inside than train has"
    inside = {place.label for place in places.values()}
    beside = defaultdict(set)
    for parts in images:
        name, *below = parts[len(root) :]
        if parts[: len(root)] == root and parts not in places and len(below) > 1:
            beside[name].add(below[0])
    return any((*root, name) not in splits and not folders & inside for name, folders in beside.items())


def _check_empty_classes(source, places):
    "Raise KdfastError for a class folder without training images"
    used = {parts[: place.depth + 1] for parts, place in places.items()}
    train_folders = {parts[: place.depth] for parts, place in places.items() if place.split == 'train'}
    class_folders = [
        (*train_folder, name)
        for train_folder in sorted(train_folders)
        for name in list_folders(source.path.joinpath(*train_folder))
    ]
    empty = ['/'.join(folder) for folder in class_folders if folder not in used]
    if empty:
        raise KdfastError(f'{source.path}: no images in {listed(empty)}: add images or remove the folder')


def _note_empty_folders(source, images, places):
    "Add a note on folders beside those of classes that hold no image, such as a class that is still to be filled"
    for root in sorted({parts[: place.depth] for parts, place in places.items()}):
        used = {parts[len(root)] for parts in images if parts[: len(root)] == root}
        for name in list_folders(source.path.joinpath(*root)):
            if name not in used:
                source.notes.add('folders without images, which are no classes', '/'.join((*root, name)))


def _class_then_split(source, images, splits):
    """Places of the images if those in folders of classes are below <class>/<split>/; else empty

    Raises KdfastError if some of them are not, although all classes have training images and images of another split
    """
    places = {
        parts: Place(splits[parts[:-1]], parts[-3], len(parts) - 3)
        for parts in images
        if len(parts) > 2 and parts[:-1] in splits
    }
    if len({place.label for place in places.values()}) < 2:
        return {}
    roots = {parts[: place.depth] for parts, place in places.items()}
    others = [
        parts
        for parts in images
        if parts not in places and any(parts[: len(root)] == root and len(parts) > len(root) + 1 for root in roots)
    ]
    if not others:
        return places
    of_class = defaultdict(set)
    for place in places.values():
        of_class[place.label].add(place.split)
    if all({'train'} < found for found in of_class.values()):
        raise KdfastError(
            f'{source.path}: {"/".join(others[0])} is in no folder of a split, but {"/".join(next(iter(places)))} is: '
            'expected <class>/<split>/<image> of all images: move or remove the others'
        )
    return {}


def _class_only(source, images, splits):
    "Places of the images below <class>/, in the first folder that holds several folders"
    top = ()
    while True:
        below = [parts for parts in images if parts[: len(top)] == top and len(parts) > len(top) + 1]
        folders = {parts[len(top)] for parts in below}
        if len(folders) != 1 or not any(len(parts) > len(top) + 2 for parts in below):
            break
        top += tuple(folders)
    depth = len(top)
    places = {
        parts: Place(None, parts[depth], depth)
        for parts in below
        if len(parts) > depth + 2 or splits.get(parts[: depth + 1]) not in ('valid', 'test')
    }
    unused = sorted(
        {parts[: depth + 1] for parts in below if parts[: depth + 1] in splits and not split_of(parts[depth])}
    )
    if unused:
        raise KdfastError(
            f'{source.path}: the names of the folders {listed(["/".join(folder) for folder in unused])} differ only in '
            f'the split, but there is no folder of a class in them{table_hint(source)}; {EXPECTED}; {IF_CLASSES}'
            f'{names_hint(source)}'
        )
    check_unlike(source, places, splits, depth)
    check_no_lists(source)
    if places:
        return places  # not the images directly in test/ beside folders of classes: they have no labels
    raise KdfastError(
        f'{source.path}: found {len(images):,} images, but no folder of a class, such as '
        f'{"/".join(images[0])}{table_hint(source)}; {EXPECTED}{names_hint(source)}'
    )


def _listing(source, images, places, layout, splits):
    "The listing in the order of the source; adds a note on images outside the folders of classes"
    items = []
    for parts in images:
        name = '/'.join(parts)
        if parts not in places:
            source.notes.add('skipped, in no folder of a class', name)
            continue
        split, label, depth = places[parts]
        items.append(Item(name, split, label, source.files[name]))
        if len(parts) > depth + 2 and parts[:-1] not in splits:
            source.notes.add('in folders below the one of their class', name)
    return Listing(layout, items, by_text=True)
