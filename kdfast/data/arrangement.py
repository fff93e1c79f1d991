"Decide which images train, validate and test, and check their classes."

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace

from kdfast.core.errors import KdfastError, listed
from kdfast.core.notes import Notes
from kdfast.data.labels import UNKNOWN, in_order, names_of
from kdfast.data.layouts.base import Item, Listing, Source, names_hint, table_hint
from kdfast.data.layouts.splits import SPLIT_NAMES

RARE = 1 / 10  # of the images of an average class: a class with fewer is rare
MISSING = frozenset('nan <na> na n/a #n/a null none nil ? -'.split())  # how programs write that a label is missing
UNLABELED = MISSING | frozenset('unknown unlabeled unlabelled missing'.split())  # how all labels of a test split may be
NUMBER = re.compile(r'0*(\d+?)(\.0*)?')  # 1, 01 and 1.0
SEPARATORS = re.compile(r'\s*[|;,/+&]\s*|\s+')  # between the labels of one image


@dataclass
class Arrangement:
    "The images of each split, ready to decode."

    splits: dict[str, list[Item]]  # train, valid (may be empty) and, if it does not validate, test
    classes: list[str]  # In the order of their labels
    layout: str  # Name of the layout, for reports
    validates: str  # The split of the source that validates; empty if there is none


def arrange(
    source: Source,  # Files of the data set
    listing: Listing,  # All of its images
) -> Arrangement:
    """Assign the images of a source to training, validation and test.

    Images without a split are training images. If there are no validation images, the test split validates; otherwise
    it is evaluated after training only. Raises KdfastError for a source without training images, for classes without
    training images, and for fewer than two classes.
    """
    listing = _labeled_splits(source, listing)
    by_split = {split: [item for item in listing.items if item.split == split] for split in SPLIT_NAMES}
    _check_kind_of_labels(source, listing)
    without_split = [item for item in listing.items if item.split is None]
    if not by_split['train']:
        by_split['train'], without_split = without_split, []
    for item in without_split:
        source.notes.add('skipped, in no split', item.name)
    if not by_split['train']:
        found = ' and '.join(f'{len(items):,} images for {split}' for split, items in by_split.items() if items)
        raise KdfastError(
            f'{source.path}: found {found or "no image"} and none to train on: expected a folder or split train'
        )
    validates = next((split for split in ('valid', 'test') if by_split[split]), '')
    splits = dict(train=by_split['train'], valid=by_split[validates] if validates else [])
    if validates == 'valid' and by_split['test']:
        splits['test'] = by_split['test']
        source.notes.add(f'test images, evaluated once, after training: {len(by_split["test"]):,}', '')
    return Arrangement(splits, _checked_classes(source, splits, listing), listing.layout, validates)


def _labeled_splits(source, listing):
    """The listing without images that should have one label and have none; adds notes on them

    Of several labels, an image may have none, except in a test split in which no image has any, as in a competition.
    Raises KdfastError for such a validation split.
    """
    unknown = _unknown_in_tests(listing.items)
    if unknown:
        source.notes.add(f'{unknown} is no label, because all test images have it, and no others', '')

    def has_label(item):
        return bool(item.label) and not (unknown and item.split == 'test')

    with_label = {item.split for item in listing.items if has_label(item)}
    valid = next((item for item in listing.items if item.split == 'valid'), None)
    if valid and 'valid' not in with_label:
        raise KdfastError(
            f'{source.path}: no validation image has a label (such as {valid.name}): label them, or leave them out'
        )
    items = []
    for item in listing.items:
        may_have_none = source.several and (item.split != 'test' or 'test' in with_label)
        if may_have_none or has_label(item):
            items.append(item)
        elif item.split == 'test':
            source.notes.add('skipped, test images without labels', item.name)
        else:
            source.notes.add('skipped, without a label', item.name)
    return replace(listing, items=items)


def _unknown_in_tests(items):
    "What all test images with a label have instead of one, and no other images: -1, ? or unknown; empty if nothing"
    names = {True: set(), False: set()}
    for item in items:
        names[item.split == 'test'].add(names_of(item.label))
    of_tests = {name.casefold(): name for labels in names[True] for name in labels or ('',)}
    of_tests.pop('', None)
    of_others = {name.casefold() for labels in names[False] for name in labels}
    is_unknown = of_tests.keys() <= set(UNKNOWN) or len(of_tests) == 1 and of_tests.keys() <= UNLABELED
    return next(iter(of_tests.values()), '') if is_unknown and not of_others & of_tests.keys() else ''


def _check_kind_of_labels(source, listing):
    "Raise KdfastError if images should have several labels, and have one"
    if not source.several:
        return
    if any(isinstance(item.label, str) for item in listing.items):
        raise KdfastError(
            f'{source.path}: --labels {source.labels}, but {listing.layout} give each image one label: '
            'expected a table with a list, with labels separated by ; or |, or with a column of 0 and 1 for each class'
        )
    if not any(len(item.label) > 1 for item in listing.items):
        raise KdfastError(
            f'{source.path}: --labels {source.labels}, but no image has more than one label: expected a list, labels '
            'separated by ; or | (by spaces with --labels spaces), or columns of 0 and 1, with other columns beside '
            'them chosen by --columns label=A+B+C'
        )
    without = sum(not item.label for item in listing.items)
    if without:
        source.notes.add(f'images without any label: {without:,}', '')


def _checked_classes(source, splits, listing):
    "Names of the classes in the order of the labels; adds notes on unusual classes. Raises KdfastError"
    counts = {
        split: Counter(name for item in items for name in names_of(item.label)) for split, items in splits.items()
    }
    train = counts['train']
    if listing.classes:
        _check_known(source, listing.classes, counts)
    for split, labels in counts.items():
        untrained = sorted(labels.keys() - train.keys())
        if untrained:
            raise KdfastError(
                f'{source.path}: no training image of {listed(untrained)}, which the {SPLIT_NAMES[split]} images have: '
                f'add some, remove the class, or correct its name{_unknown_hint(untrained, labels)}'
            )
    if len(train) < 2:
        hints = table_hint(source) + names_hint(source)
        raise KdfastError(f'{source.path}: found one class, {next(iter(train))}: expected at least two{hints}')
    names = listing.classes or (sorted if listing.by_text else in_order)(train)
    unprintable = [repr(name) for name in names if not name.isprintable() or not name]
    if unprintable:
        raise KdfastError(
            f'{source.path}: the names of classes {listed(unprintable)} have characters that cannot be printed: '
            'rename them'
        )
    _note_unusual_classes(source.notes, names, counts, source.several)
    return names


def _unknown_hint(untrained, labels):
    "What to do if all images of a split have one label that no training image has"
    return f'; if {untrained[0]} means that the label is not known, leave the label empty' if len(labels) == 1 else ''


def _check_known(source, known, counts):
    "Raise KdfastError if a list of classes names one twice, or lacks a label"
    twice = [name for name, n in Counter(known).items() if n > 1]
    if twice:
        raise KdfastError(
            f'{source.path}: the list of classes has {listed(twice)} twice: rename one of each, such as {twice[0]} 2'
        )
    unknown = in_order({name for labels in counts.values() for name in labels} - set(known))
    if unknown:
        raise KdfastError(
            f'{source.path}: the labels {listed(list(map(repr, unknown)))} are not in the list of classes '
            f'({listed(known)}): correct the labels, or the list'
        )


def _note_unusual_classes(notes: Notes, names, counts, several):
    train = counts['train']
    for name, n in Counter(unicodedata.normalize('NFC', name).casefold() for name in names).items():
        if n > 1:
            notes.add('classes whose names differ only in case or accents', name)
    numbers = Counter(match[1] for name in names if (match := NUMBER.fullmatch(name)))
    for number, n in numbers.items():
        if n > 1:
            notes.add('classes whose names are the same number', number)
    for name in names:
        if name.casefold() in MISSING:
            notes.add('classes whose names may mean that the label is missing', f'{name}: {train[name]:,} images')
        if not train[name]:
            notes.add('classes without images', name)
        elif train[name] < RARE * train.total() / len(train):
            notes.add('rare classes', f'{name}: {train[name]:,} training images')
        if counts['valid'] and train[name] and not counts['valid'][name]:
            notes.add('classes without validation images', name)
    if several:
        return
    for name in _combined_names(names):
        notes.add(
            'classes that look like several labels of one image; each combination is a class, unless --labels several',
            name,
        )


def _combined_names(names):
    "Names made of the names of other classes, or of the same parts as another name"
    parts = {name: frozenset(SEPARATORS.split(name)) for name in names}
    all_names, n_of_parts = set(names), Counter(parts.values())
    return [
        name for name in names if len(parts[name]) > 1 and (parts[name] <= all_names or n_of_parts[parts[name]] > 1)
    ]
