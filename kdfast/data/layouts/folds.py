"Refuse folds of a cross-validation: folders, and files that hold many images each."

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath, PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.splits import SHARD, WORD, split_of

IF_CLASSES = 'if they are classes, put them into a folder train/'
FOLD = re.compile(r'(?<![A-Za-z])(k?fold|cv|split)[\W_]*(\d+)', re.IGNORECASE)


def find_folds(
    paths: Iterable[tuple[str, ...]],  # Parts of paths
) -> list[tuple[str, ...]]:  # Sorted; empty if there are none
    """Return paths whose names differ in the number of a fold alone: train_fold1 and train_fold2.

    Names such as split1 beside split2 may be of parts, unless they have the word of a split: train_split1.
    """
    folds = defaultdict(dict)
    for path in sorted(paths):
        match = FOLD.search(name := SHARD.sub('', path[-1]))
        if match and (match[1].lower() != 'split' or any(map(split_of, WORD.findall(name)))):
            folds[path[:-1], name[: match.start(2)], name[match.end() :]][match[2]] = path
    return next((list(of_name.values()) for of_name in folds.values() if len(of_name) > 1), [])


def check_fold_files(
    names: Iterable[str],  # Of files that hold many images each, or many names of images
    where: PurePath | str,  # Name of the data set in errors
):
    "Raise KdfastError for files of folds of a cross-validation: train_fold1.csv and train_fold2.csv."
    files = [PurePosixPath(name) for name in names]
    folds = find_folds({path.parts[:n] for path in files for n in range(1, len(path.parts) + 1)})
    if folds:
        suffix = files[0].suffix
        raise KdfastError(
            f'{where}: {listed(list(map("/".join, folds)))} seem to be folds of a cross-validation: keep those '
            f'of one fold, or join folds to a train{suffix} and a valid{suffix}'
        )


def check_fold_folders(
    splits: Iterable[tuple[str, ...]],  # Folders of splits with images
    where: PurePath | str,  # Name of the data set in errors
):
    "Raise KdfastError for splits of folds of a cross-validation, such as train_fold1 and train_fold2."
    folds = ['/'.join(path) for path in find_folds(splits)]
    if folds:
        raise KdfastError(
            f'{where}: {listed(folds)} seem to be folds of a cross-validation: keep those of one fold, or '
            'join folds to a folder train/ and a folder valid/'
        )


def check_folds(
    source: Source,  # Files of the data set
    images: Iterable[tuple[str, ...]],  # Parts of their paths
):
    """Raise KdfastError for folds of a cross-validation, such as fold1/cat and fold2/cat.

    In a folder of a split they are classes.
    """
    inside = defaultdict(lambda: defaultdict(set))
    for parts in images:
        for n in range(1, len(parts) - 1):
            if FOLD.fullmatch(parts[n - 1]) and not any(map(split_of, parts[: n - 1])):
                inside[parts[: n - 1]][parts[n - 1]].add(parts[n])
    for parent, folds in inside.items():
        shared = set.intersection(*folds.values())
        if len(folds) > 1 and len(shared) > 1:
            names = ['/'.join((*parent, fold)) for fold in sorted(folds)]
            raise KdfastError(
                f'{source.path}: {listed(names)} seem to be folds of a cross-validation, as {listed(sorted(shared))} '
                f'are in each: read one with --data {source.path}/{names[0]}, or put the images of training into a '
                f'folder train/ and those of validation into valid/; {IF_CLASSES}'
            )
