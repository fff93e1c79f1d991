"Which images train, which validate, which are kept for a test, and the class of each."

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Item, Listing, Source, tables

FEW = 1 / 10  # of the images of an average class: a class with fewer is rare
SEPARATORS = re.compile(r'\s*[|;,/+&]\s*|\s+')


@dataclass
class Arrangement:
    "What to decode."

    splits: dict[str, list[Item]]  # train, valid (may be empty) and, where there is one besides, test
    classes: list[str]  # In the order of their labels
    layout: str  # As its reader calls it
    validates: str  # The split of the source that validates; nothing where there is none


def arrange(
    source: Source,
    listing: Listing,  # What a layout has found there
) -> Arrangement:
    """Training, validation and test images of a source.

    Images without a split train; without validation images the test split validates, else it is kept apart.
    Raises KdfastError for a source without training images, classes that nothing trains, and fewer than two of them.
    """
    found = {split: [item for item in listing.items if item.split == split] for split in ('train', 'valid', 'test')}
    rest = [item for item in listing.items if item.split is None]
    if not found['train']:
        found['train'], rest = rest, []
    for item in rest:
        source.notes.add('left out, in no split', item.name)
    if not found['train']:
        there = ' and '.join(f'{len(items):,} images for {split}' for split, items in found.items() if items)
        raise KdfastError(
            f'{source.path}: found {there or "no image"} and none to train on: expected a folder or split train'
        )
    validates = next((split for split in ('valid', 'test') if found[split]), '')
    splits = dict(train=found['train'], valid=found[validates] if validates else [])
    if validates == 'valid' and found['test']:
        splits['test'] = found['test']
        source.notes.add(f'test images, kept apart: {len(found["test"]):,}', '')
    return Arrangement(splits, classes_of(source, splits, listing.classes), listing.layout, validates)


def classes_of(source, splits, known):
    "Their names in the order of the labels. Raises KdfastError"
    counts = {split: Counter(item.label for item in items) for split, items in splits.items()}
    train = counts['train']
    untrained = {split: sorted(labels.keys() - train.keys()) for split, labels in counts.items()}
    for split, names in untrained.items():
        if names:
            raise KdfastError(
                f'{source.path}: no training image of {listed(names)}, which the '
                f'{dict(valid="validation", test="test")[split]} images have: '
                'add some, remove the class, or mend its name'
            )
    if len(train) < 2:
        raise KdfastError(
            f'{source.path}: found one class, {next(iter(train))}; a classifier needs at least two{tables(source)}'
        )
    names = known or sorted(train)
    unspeakable = [repr(name) for name in names if not name.isprintable() or not name]
    if unspeakable:
        raise KdfastError(
            f'{source.path}: the names of classes {listed(unspeakable)} have characters that cannot be '
            'printed: rename them'
        )
    remark(source.notes, names, counts)
    return names


def remark(notes, names, counts):
    "Note what is unusual about the classes"
    train = counts['train']
    for name, n in Counter(unicodedata.normalize('NFC', name).casefold() for name in names).items():
        if n > 1:
            notes.add('classes whose names differ in case or accents alone', name)
    for name in names:
        if not train[name]:
            notes.add('classes without images', name)
        elif train[name] < FEW * train.total() / len(train):
            notes.add('rare classes', f'{name}: {train[name]:,} training images')
        if counts['valid'] and train[name] and not counts['valid'][name]:
            notes.add('classes without validation images', name)
    for name in composed(names):
        notes.add('classes that look like several labels of one image, each combination is a class of its own', name)


def composed(names):
    "Names of classes made of the names of others, or of the parts of another"
    parts = {name: frozenset(SEPARATORS.split(name)) for name in names}
    whole, sets = set(names), Counter(parts.values())
    return [name for name in names if len(parts[name]) > 1 and (parts[name] <= whole or sets[parts[name]] > 1)]
