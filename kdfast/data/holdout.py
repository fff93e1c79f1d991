"""Validate on a fraction of the training images."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.core.once import compute_once
from kdfast.data.arrays import Rows, summarize
from kdfast.data.cache import short_digest
from kdfast.data.dataset import Data
from kdfast.data.labels import has_class, has_several

DEFAULT_FRACTION = 0.2  # of the training images, if there are no validation images


def hold_out(
    data: Data,  # Decoded images
    fraction: float,  # Of the training images, above 0 and below 1
    seed: int | None = None,  # Of the split; default: the split that all seeds have
) -> Data:
    """Validate on a fraction of the training images of each class.

    Options can then be tuned without the validation set. The images are the same for every seed and recipe; with the
    seed of a split, for every recipe of that seed. The name of the data set gets the fraction, except for the default
    of a data set without validation images. Every class keeps a training image. Raises KdfastError if no image is held
    out.
    """
    images, labels = data.train
    held_out = _choose_images(labels, len(data.classes), fraction, seed)
    if not held_out.any():
        raise KdfastError(
            f'--holdout {fraction} takes none of the {len(labels):,} training images, of '
            f'{len(data.classes)} classes: expected a larger fraction'
        )
    train, valid = ((Rows(images, np.flatnonzero(rows)), labels[rows]) for rows in (~held_out, held_out))

    def find_facts():  # slow for many images
        return summarize(data.classes, *((train, valid, data.test) if data.test else (train, valid)))

    key = short_digest(data.fingerprint + hashlib.sha256(held_out.tobytes()).hexdigest())
    folder = Path(images.filename).parent if isinstance(images, np.memmap) else getattr(images, 'folder', None)
    if folder:
        facts = compute_once(folder / f'holdout-{key}.json', find_facts)
    else:
        facts = find_facts()
    is_default = fraction == DEFAULT_FRACTION and not len(data.valid[1])
    name = data.name if is_default else f'{data.name},holdout={fraction}'
    notes = [*data.notes, *_holdout_notes(data, fraction, valid[1])]
    if seed is not None:
        name, facts = f'{name},resplit=True', facts | dict(drawn_from=data.fingerprint)
    return replace(data, name=name, train=train, valid=valid, notes=notes, **facts)


def _choose_images(labels, n_classes, fraction, seed):
    "Which images are held out: (n,), bool"
    if has_several(labels):
        return _choose_images_of_several(labels, fraction, seed)
    held_out = np.zeros(len(labels), bool)
    for label in range(n_classes):
        of_class = _random(seed, label).permutation(np.flatnonzero(labels == label))
        held_out[of_class[: min(round(fraction * len(of_class)), len(of_class) - 1)]] = True
    return held_out


def _random(seed, part):
    "The generator of a part of the split"
    return np.random.default_rng(part if seed is None else [seed, part, 1])  # NumPy ignores zeros at the end


def _choose_images_of_several(labels, fraction, seed):
    "Which images are held out: a random fraction, but of each label one image remains"
    held_out, left = np.zeros(len(labels), bool), labels.sum(0, dtype=np.int64)
    n_left = round(fraction * len(labels))  # counted, because summing a million flags for each image would take hours
    for image in _random(seed, 0).permutation(len(labels)):
        if not n_left:
            break
        if (left[labels[image] == 1] > 1).all():
            held_out[image] = True
            n_left -= 1
            left -= labels[image]
    return held_out


def _holdout_notes(data, fraction, labels):
    notes = [] if len(data.valid[1]) else [no_validation_note(data, fraction)]
    missing = [name for label, name in enumerate(data.classes) if not has_class(labels, label).any()]
    if missing:
        others = ', …' if len(missing) > 1 else ''
        notes.append(f'classes without validation images: {len(missing):,} ({missing[0]}{others})')
    return notes


def no_validation_note(
    data: Data,  # Decoded images
    fraction: float,  # Of the training images that are held out
) -> str:
    "Return the note on a data set without validation images."
    of_each = '' if has_several(data.train[1]) else ' of each class'
    return (
        f'no validation images: {fraction:.0%}{of_each} validates, chosen at random '
        f'({data.name}; set the fraction with --holdout)'
    )
