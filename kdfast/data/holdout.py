"""Validate on a share of the training images."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.core.once import compute_once
from kdfast.data.arrays import Rows
from kdfast.data.cache import short_digest
from kdfast.data.dataset import Data, assemble

HELD_OUT = 0.2  # share of the training images that validates where there are no validation images


def hold_out(
    data: Data,  # A data set
    share: float,  # Of its training images, above 0 and below 1
) -> Data:
    """Validate on a share of the training images of each class: options can be chosen, validation images stay unseen.

    The same images for every seed and recipe; the data set's name tells the share, so that its runs stay apart, but for
    the usual one of a data set without validation images. At least one image of each class trains.
    Raises KdfastError where no image is held out.
    """
    images, labels = data.train
    held = np.zeros(len(labels), bool)
    for label in range(len(data.classes)):
        of_class = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))
        held[of_class[: min(round(share * len(of_class)), len(of_class) - 1)]] = True
    if not held.any():
        raise KdfastError(
            f'--holdout {share} takes none of the {len(labels):,} training images, of '
            f'{len(data.classes)} classes: expected a larger share'
        )
    train, valid = ((Rows(images, np.flatnonzero(rows)), labels[rows]) for rows in (~held, held))

    def find():  # takes long for many images
        made = assemble(data.name, data.classes, train, valid, data.test)
        return dict(mean=made.mean, std=made.std, fingerprint=made.fingerprint)

    key = short_digest(data.fingerprint + hashlib.sha256(held.tobytes()).hexdigest())
    if isinstance(images, np.memmap):
        facts = compute_once(Path(images.filename).parent / f'holdout-{key}.json', find)
    else:
        facts = find()
    usual = share == HELD_OUT and not len(data.valid[1])
    name = data.name if usual else f'{data.name},holdout={share}'
    notes = [*data.notes, *held_notes(data, share, valid[1])]
    return replace(data, name=name, train=train, valid=valid, notes=notes, **facts)


def held_notes(data, share, labels):
    "What a user should know about the images that were held out"
    lacking = [name for label, name in enumerate(data.classes) if not (labels == label).any()]
    said = [] if len(data.valid[1]) else [no_validation(data, share)]
    return said + (
        [f'classes without validation images: {len(lacking):,} ({lacking[0]}{", …" if len(lacking) > 1 else ""})']
        if lacking
        else []
    )


def no_validation(data, share):
    return (
        f'no validation images: {share:.0%} of each class validates, chosen at random '
        f'({data.name}; --holdout sets the share)'
    )
