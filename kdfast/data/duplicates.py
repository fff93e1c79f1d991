"Find images that occur more than once, by the SHA-256 of their pixels."

from pathlib import Path

import numpy as np

from kdfast.data.arrays import digest
from kdfast.data.layouts.splits import SPLIT_NAMES


def duplicate_notes(
    folder: Path,  # Of the cache
    train: tuple,  # (images, labels)
    valid: tuple,  # The same; it may be empty
    test: tuple | None,  # The same
) -> list[str]:
    "Return notes on images that occur more than once."
    splits = {name: split for name, split in dict(train=train, valid=valid, test=test).items() if split}
    found = {name: _digests(folder, name, images) for name, (images, _) in splits.items()}
    known, notes = set(found['train']), []
    n = len(found['train']) - len(known)
    if n:
        held_out = '' if len(valid[1]) else '; held-out images may be copies of them'
        notes.append(f'duplicates among the training images: {n:,} of {len(found["train"]):,}{held_out}')
    for name in [name for name in splits if name != 'train']:
        n = sum(one in known for one in found[name])
        if n:
            notes.append(f'{SPLIT_NAMES[name]} images that are also training images: {n:,} of {len(found[name]):,}')
    label_of, conflicting = {}, set()
    for name, digests in found.items():
        for one, label in zip(digests, splits[name][1]):
            if label_of.setdefault(one, label.tobytes()) != label.tobytes():
                conflicting.add(one)
    n = len(conflicting)
    if n:
        notes.append(f'images that occur with different labels: {n:,}')
    return notes


def _digests(folder, split, images):
    "The SHA-256 of each image: found while they were decoded, or in arrays that were scaled to 8 bits afterwards"
    file = folder / f'{split}_digests.npy'
    return list(map(bytes, np.load(file))) if file.exists() else [digest(images[i]) for i in range(len(images))]
