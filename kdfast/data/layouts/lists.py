"Lists of images per split beside folders of classes: Food-101, DTD, Oxford-IIIT Pet, ImageNet."

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError
from kdfast.data.formats import image_suffixes
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.image_index import ImageIndex
from kdfast.data.layouts.rows import read_lines
from kdfast.data.layouts.splits import SPLIT_NAMES, find_splits, note_joined, split_of

PRIORITY = 70  # before tables and folders: images/<class>/ beside the lists has no splits
N_TESTED = 20  # lines that are tested for names of images
NUMBERED = re.compile(r'(.*?)[_\s-]?\d+')  # Abyssinian_100 in Oxford-IIIT Pet


class Line(NamedTuple):
    "An image of a list."

    where: str  # The list and the number of the line, for errors
    file: str  # Name of the list
    split: str
    word: str  # How the list names the image
    image: str  # Name of the image in the source
    rest: list[str]  # What follows the name

    @property
    def folder(self) -> str:
        "The folder that the list names, unless it is one of a split."
        name = PurePosixPath(self.word.replace('\\', '/')).parent.name
        return '' if split_of(name) else name

    @property
    def prefix(self) -> str:
        "The name of the file up to its number, if it has letters."
        numbered = NUMBERED.fullmatch(PurePosixPath(self.image).stem)
        return numbered[1] if numbered and any(map(str.isalpha, numbered[1])) else ''


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there are lists of a training and another split that name images."
    lists = _lists_by_split(source)
    if 'train' not in lists or not lists.keys() & {'valid', 'test'} or source.columns or source.table:
        return False
    index, file = ImageIndex(source), lists['train']
    lines = read_lines(f'{source.path}/{file}', source.files[file])
    return any(index.find(_name_and_rest(line, index, file, 'train')[0], file, 'train') for _, line in lines[:N_TESTED])


def check_no_lists(
    source: Source,  # Files of the data set
):
    "Raise KdfastError if lists name the images of some splits only, so that the others would train."
    lists, index = _lists_by_split(source), ImageIndex(source)
    for split, file in lists.items():
        lines = read_lines(f'{source.path}/{file}', source.files[file])
        named = {index.find(_name_and_rest(text, index, file, split)[0], file, split) for _, text in lines} - {None}
        if named and len(named) < len(source.images):
            missing = 'validation or test' if split == 'train' else 'training'
            other = PurePosixPath(file).with_name('test.txt' if split == 'train' else 'train.txt')
            raise KdfastError(
                f'{source.path}: {file} lists {SPLIT_NAMES[split]} images, but there is no list of {missing} images, '
                f'such as {other}: add it, or remove {file}'
            )


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images in the order of the source. Raises KdfastError for missing and repeated images."
    items, list_of_image = [], {}
    lines = _read_lists(source)
    for line, label in zip(lines, _labels(source, lines)):
        if line.image in list_of_image:
            raise KdfastError(f'{line.where}: {line.image} is also in {list_of_image[line.image]}')
        list_of_image[line.image] = line.file
        if label:
            items.append(Item(line.image, line.split, label, source.files[line.image]))
    for name in source.images:
        if name not in list_of_image:
            source.notes.add('skipped, in no list', name)
    for file in (file for _, *others in _all_lists(source).values() for file in others):
        source.notes.add('lists that are not used, beside another of the same split', file)
    note_joined({line.file: line.split for line in lines}, source.notes)
    lists = ', '.join(sorted(set(list_of_image.values())))
    position = {name: i for i, name in enumerate(source.images)}
    return Listing(f'lists of images ({lists})', sorted(items, key=lambda item: position[item.name]))


def _read_lists(source):
    "The lines of all lists. Raises KdfastError for a line that names no image"
    index, lines = ImageIndex(source), []
    for split, file in _lists_by_split(source).items():
        numbered = read_lines(f'{source.path}/{file}', source.files[file])
        texts = [_name_and_rest(text, index, file, split) for _, text in numbered]
        found = index.find_all([word for word, _ in texts], file, split)
        for (number, _), (word, rest), (image, problem) in zip(numbered, texts, found):
            where = f'{source.path}/{file}, line {number}'
            if not image:
                raise KdfastError(f'{where}: {problem}')
            lines.append(Line(where, file, split, word, image, rest))
    return lines


def _name_and_rest(text, index, file, split):
    "The name of the image in a line, the longest one that there is, as names may have spaces; and the words after it"
    words = text.split()
    for n_after in range(len(words)):
        name, *rest = text.rsplit(None, n_after)
        if index.find(name, file, split):
            return name, rest
    name, *rest = re.split(r'\s*[,;]\s*', text)
    if index.find(name, file, split):
        return name, rest
    ends = [n for n, word in enumerate(reversed(words)) if PurePosixPath(word).suffix.lower() in image_suffixes()]
    name, *rest = text.rsplit(None, ends[0] if ends else len(words) - 1)
    return name, rest


def _lists_by_split(source):
    "The first list of each split"
    return {split: files[0] for split, files in _all_lists(source).items()}


def _all_lists(source):
    "The lists of each split: train.txt before train2.txt, train2.txt before train10.txt"

    def natural_order(name):
        return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]

    lists = {}
    found = [name for name in source.files if name.lower().endswith(('.txt', '.lst'))]
    paths = {name: PurePosixPath(name).with_suffix('').parts for name in found}
    splits = find_splits(paths.values())
    for name in sorted(found, key=natural_order):
        if paths[name] in splits:
            lists.setdefault(splits[paths[name]], []).append(name)
    return {split: lists[split] for split in SPLIT_NAMES if split in lists}


def _labels(source, lines):
    """The label of each line: its second word, if there is one; None for a test image without a label

    Folders or file names that say the same in words are the names of the classes. Raises KdfastError without a label
    """
    labelled = [line for line in lines if line.rest]
    if not labelled:
        names = {line.folder: line.folder for line in lines}
        return [_label(source, line, line.folder, names) for line in lines]
    for name_of in (lambda line: line.folder, lambda line: line.prefix):
        names = _one_to_one([(line.rest[0], name_of(line)) for line in labelled])
        if names:
            names |= {name: name for name in names.values()}  # of lines without a label
            return [_label(source, line, line.rest[0] if line.rest else name_of(line), names) for line in lines]
    for line in labelled:
        if len(line.rest) > 1:
            raise KdfastError(
                f'{line.where}: {len(line.rest)} words after {line.word}: expected one, its class; labels with spaces '
                'and several labels of an image need a table (docs/data.md)'
            )
    if any(len({getattr(line, part) for line in labelled} - {''}) > 1 for part in ('folder', 'prefix')):
        for line in labelled:
            source.notes.add('labels by the lists; folders or file names differ from them', line.image)
    names = {line.rest[0]: line.rest[0] for line in labelled}
    return [_label(source, line, ''.join(line.rest), names) for line in lines]


def _one_to_one(pairs):
    "The name of each label; None unless each label has one name, and each name one label"
    names = {}
    for label, name in pairs:
        if name and names.setdefault(label, name) != name:
            return None
    is_complete = len(names) == len({label for label, _ in pairs}) == len(set(names.values()))
    return names if is_complete else None


def _label(source, line, label, names):
    "The name of the class of a line; None for a test image without a label"
    if names.get(label):
        return names[label]
    if line.split == 'test':
        source.notes.add('skipped, test images without labels', line.image)
        return None
    raise KdfastError(f'{line.where}: {line.word} has no class: expected a folder named after it, or a second word')
