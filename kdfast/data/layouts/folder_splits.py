"Check that folders whose names seem to be those of splits are splits."

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.folds import IF_CLASSES
from kdfast.data.layouts.splits import SPLIT_NAMES, find_unions, find_unlike, split_of, unlike_message


def without_unions(
    source: Source,  # Files of the data set
    images: list[tuple[str, ...]],  # Parts of their paths
    splits: Mapping[tuple[str, ...], str],  # By folder
) -> list[tuple[str, ...]]:
    "Return the images without those in folders that repeat others (trainval); add a note on these."
    unions = set(find_unions(splits, source.path))
    repeated = [parts for parts in images if any(parts[:n] in unions for n in range(1, len(parts)))] if unions else []
    for parts in repeated:
        source.notes.add(
            'skipped, training and validation images that are also in folders of their own', '/'.join(parts)
        )
    left_out = set(repeated)
    return [parts for parts in images if parts not in left_out]


def note_together(
    source: Source,  # Files of the data set
    splits: Mapping[tuple[str, ...], str],  # By folder that holds images
):
    "Add a note on folders of one split beside each other, such as train1 and train2."
    beside = defaultdict(list)
    for folder, split in sorted(splits.items()):
        beside[folder[:-1], split].append('/'.join(folder))
    for (_, split), folders in beside.items():
        if len(folders) > 1:
            source.notes.add(f'{listed(folders)} are read together, as {SPLIT_NAMES[split]} images', '')


def check_unlike(
    source: Source,  # Files of the data set
    places: Iterable[tuple[str, ...]],  # Parts of the paths of the images of classes
    splits: Mapping[tuple[str, ...], str],  # By folder
    depth: int,  # Index of the class folder in the parts of a path
):
    "Raise KdfastError if folders of classes, or those in them, seem to be splits of the same classes."
    inside = defaultdict(set)
    for parts in places:
        for n in (depth + 1, depth + 2):
            if len(parts) > n:
                inside[parts[:n]].update(parts[n : len(parts) - 1][:1])

    def are_alike(a, b):
        (path, rest), (other, other_rest) = a, b
        return bool(inside[path] & inside[other]) or rest == other_rest and path[:-1] != other[:-1]

    unlike = find_unlike(sorted(path for path in inside if path not in splits), are_alike)
    if unlike:
        raise KdfastError(unlike_message(source.path, unlike, f'; {IF_CLASSES}'))


def check_classes(
    source: Source,  # Files of the data set
    labels: Mapping[str, set[str]],  # Names of the classes by split
    folders: Iterable[tuple[str, ...]],  # Of the splits
):
    "Raise KdfastError if folders that differ in the split alone (pets-train) have different classes."
    inferred = ['/'.join(folder) for folder in folders if not split_of(folder[-1])]
    untrained = sorted(set().union(*labels.values()) - labels.get('train', set()))
    if not inferred or not untrained and len(labels['train']) > 1:
        return
    found = (
        f'only some have {listed(untrained)} in them'
        if untrained
        else f'have one class in them, {min(labels["train"])}'
    )
    raise KdfastError(
        f'{source.path}: the names of the folders {listed(inferred)} differ only in the split, but {found}: expected '
        f'folders of the same classes; {IF_CLASSES}'
    )
