"Find the splits of files that hold many images each: Parquet files, shards."

from collections.abc import Iterable, Mapping
from pathlib import PurePath, PurePosixPath

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.folds import check_fold_files
from kdfast.data.layouts.splits import find_unions, find_unlike, note_joined, splits_of_files, unlike_message


def read_file_splits(
    source: Source,  # Receives notes
    names: Iterable[str],  # Of files
) -> dict[str, str | None]:  # train, valid or test
    "Return the splits of files, without those that repeat others (trainval). Raises KdfastError."
    splits = splits_of_files(names)
    check_named(splits, source.path)
    unions = set(find_unions({PurePosixPath(name).parts: split for name, split in splits.items()}, source.path))
    for name in [name for name in splits if PurePosixPath(name).parts in unions]:
        source.notes.add('skipped, training and validation images that are also in files of their own', name)
        del splits[name]
    note_joined(splits, source.notes)
    return splits


def check_named(
    splits: Mapping[str, str | None],  # By the names of files
    where: PurePath,  # Name of the data set in errors
):
    "Raise KdfastError for folds, and if no file has a split, but names seem to: atrain and btest."
    check_fold_files(splits, where)
    if any(splits.values()):
        return
    paths = {PurePosixPath(name).parts[:n] for name in splits for n in range(1, len(PurePosixPath(name).parts) + 1)}
    unlike = find_unlike(sorted(paths), lambda a, b: True)
    if unlike:
        raise KdfastError(unlike_message(where, unlike, ''))
