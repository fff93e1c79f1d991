"Which images train, which validate, and the class of each."
import unicodedata
from collections import Counter, defaultdict
from pathlib import PurePosixPath

from kdfast.errors import KdfastError, listed

SUFFIXES = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff'}
VALID_NAMES = ('valid', 'val', 'test')  # the first of these that is there is the validation set
LAYOUT = 'expected train/<class>/<image> beside test|valid|val/<class>/<image>'


class Notes:
    "What is no error, but nothing to be silent about either: how often, and one example."
    def __init__(self): self.found = defaultdict(list)

    def add(self, what, name): self.found[what].append(name)

    def said(self): return [f'{what}: {len(names):,} ({names[0]}{", …" if len(names) > 1 else ""})' for what,names in self.found.items()]


def layout(path, files, notes):
    "The images of train and of valid, each as (name, class, opener)"
    found = defaultdict(list)
    for name,open_file in files:
        parts = PurePosixPath(name).parts
        if parts[-1].startswith('.') or '__MACOSX' in parts: continue
        if path.is_dir() and (path/name).is_dir(): raise KdfastError(f'{path}: {name} is a folder; {LAYOUT}')
        if PurePosixPath(name).suffix.lower() not in SUFFIXES: notes.add('skipped, not named like an image', name)
        elif len(parts) < 3 or parts[-3] not in ('train', *VALID_NAMES): raise KdfastError(f'{path}: found the image {name}; {LAYOUT}')
        else: found[parts[-3]].append((name, parts[-2], open_file))
    valid = next((split for split in VALID_NAMES if split in found), None)
    if 'train' not in found or not valid:
        raise KdfastError(f'{path}: found {" and ".join(sorted(found)) or "no images"}; {LAYOUT}')
    if path.is_dir():
        full = {f'{split}/{label}' for split in ('train', valid) for _,label,_ in found[split]}
        empty = [name for split in ('train', valid) for name in sorted(f'{split}/{d.name}' for d in (path/split).iterdir() if d.is_dir()) if name not in full]
        if empty: raise KdfastError(f'{path}: no images in {listed(empty)}: fill or remove')
    return dict(train=found['train'], valid=found[valid])


def classes_of(path, splits, notes):
    train,valid = (sorted({label for _,label,_ in listing}) for listing in splits.values())
    if train != valid:
        raise KdfastError(f'{path}: the classes differ: only in train: {listed(sorted(set(train)-set(valid))) or "none"}; '
                          f'only in validation: {listed(sorted(set(valid)-set(train))) or "none"}')
    if len(train) < 2: raise KdfastError(f'{path}: found one class, {train[0]}; a classifier needs at least two')
    unspeakable = [repr(name) for name in train if not name.isprintable()]
    if unspeakable: raise KdfastError(f'{path}: the names of classes {listed(unspeakable)} have characters that cannot be printed: rename the folders')
    for name,n in Counter(unicodedata.normalize('NFC', name).casefold() for name in train).items():
        if n > 1: notes.add('classes whose names differ in case or accents alone', name)
    return train
