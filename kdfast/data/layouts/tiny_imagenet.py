"Tiny ImageNet as published: train/<class>/images/, and val/images/ with val_annotations.txt."

from pathlib import PurePosixPath
from posixpath import basename  # many times as fast as pathlib, for a million files

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.official_files import (
    check_complete,
    check_names,
    find_official,
    note_missing_names,
    note_others,
    read_text,
    unique_or_none,
)
from kdfast.data.layouts.rows import read_lines

PRIORITY = 65  # before lists, tables and folders: images/ of the validation images is not a class

NAME = 'Tiny ImageNet'
ANNOTATIONS, CLASSES, WORDS = OFFICIAL = 'val_annotations.txt', 'wnids.txt', 'words.txt'


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there are val/images/ with annotations; others move them to folders of classes."
    if source.columns or source.table:
        return False
    paths = [PurePosixPath(name) for name in source.files if basename(name) in (ANNOTATIONS, CLASSES)]
    folders = {path.with_name('images') if path.name == ANNOTATIONS else path.parent / 'val/images' for path in paths}
    return bool(folders) and any(PurePosixPath(name).parent in folders for name in source.images)


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images. Raises KdfastError for validation images that are missing, or in two lines."
    files = find_official(source, OFFICIAL)
    check_complete(source, files, [ANNOTATIONS])
    valid_folder = PurePosixPath(files[ANNOTATIONS]).parent
    labels = _validation_labels(source, files[ANNOTATIONS], valid_folder / 'images')
    train_folder, test_folder = valid_folder.with_name('train'), valid_folder.with_name('test')
    items = []
    for name in source.images:
        path = PurePosixPath(name)
        if path.is_relative_to(train_folder) and len(path.parts) > len(train_folder.parts) + 1:
            items.append(Item(name, 'train', path.parts[len(train_folder.parts)], source.files[name]))
        elif name in labels:
            items.append(Item(name, 'valid', labels[name], source.files[name]))
        elif path.is_relative_to(test_folder):
            items.append(Item(name, 'test', '', source.files[name]))
    boxes = (name for name in source.files if name.endswith('_boxes.txt'))
    note_others(source, [*files.values(), *boxes, *(item.name for item in items)], NAME)
    return _named(source, files, items)


def _validation_labels(source, file, folder):
    "The class of each validation image, by its name in the source. Raises KdfastError"
    labels, images = {}, set(source.images)
    for number, line in read_lines(f'{source.path}/{file}', source.files[file]):
        where = f'{source.path}/{file}, line {number}'
        image, _, rest = line.partition('\t')
        name, label = str(folder / image), rest.partition('\t')[0]
        problem = '' if label else 'expected the name of an image, a tab and its class'
        if label and name not in images:
            problem = f'there is no file {name}'
        elif name in labels:
            problem = f'{name} appears twice'
        if problem and not source.skip_broken:
            raise KdfastError(f'{where}: {problem}')
        if problem:
            source.notes.add('skipped, rows that cannot be read', f'{where}: {problem}')
        else:
            labels[name] = label
    if not labels:
        raise KdfastError(f'{source.path}/{file} has no validation image: download or unpack the data set again')
    return labels


def _named(source, files, items):
    "The listing with names of classes in the order of their folders, as torchvision, timm and fastai sort them"
    ids = sorted({item.label for item in items if item.split == 'train'})
    untrained = sorted({item.label for item in items if item.split == 'valid'} - set(ids))
    if untrained:
        raise KdfastError(
            f'{source.path}: no training image of {listed(untrained)}, which {files[ANNOTATIONS]} has: download or '
            'unpack the data set again'
        )
    for name in _lines(source, files.get(CLASSES)):
        if name not in ids:
            source.notes.add(f'classes of {CLASSES} without training images', name)
    names = _names(source, files.get(WORDS), ids)
    if names is None:
        return Listing(NAME, items, by_text=True)
    name_of = dict(zip(ids, names))
    return Listing(NAME, [item._replace(label=name_of.get(item.label, '')) for item in items], names)


def _names(source, file, ids):
    "The first name of each class; None without a file of names, or if names are equal. Raises KdfastError"
    if not file:
        note_missing_names(source, WORDS)
        return None
    words = dict(line.split('\t', 1) for line in _lines(source, file) if '\t' in line)
    check_names(source, file, list(words))
    unnamed = [name for name in ids if name not in words]
    if unnamed:
        raise KdfastError(f'{source.path}: {file} has no name of {listed(unnamed)}: download it again, or remove it')
    return unique_or_none(source, [words[name].partition(',')[0].strip() for name in ids])


def _lines(source, file):
    "The lines of a text file; none without the file"
    return read_text(source.files[file], f'{source.path}: {file}').splitlines() if file else []
