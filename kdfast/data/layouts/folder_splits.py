"Check that folders whose names seem to be those of splits are splits."

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.folds import IF_CLASSES
from kdfast.data.layouts.splits import SPLIT_NAMES, find_unions, find_unlike, split_of, unlike_message


def without_outer(
    splits: Mapping[tuple[str, ...], str],  # By folder
    images: Iterable[tuple[str, ...]],  # Parts of their paths
) -> dict[tuple[str, ...], str]:
    """Return the folders of splits without those that merely hold others.

    Such as the outer train/ of train/pets/train and train/pets/test.
    """
    inside = _folders_inside(images)

    def holds_splits(folder):
        while not {'train'} < {splits.get((*folder, name)) for name in inside[folder]} - {None}:
            if len(inside[folder]) != 1:
                return False
            folder = (*folder, *inside[folder])
        return True

    n_beside = Counter(folder[:-1] for folder in splits)
    return {folder: split for folder, split in splits.items() if n_beside[folder[:-1]] > 1 or not holds_splits(folder)}


def _folders_inside(images):
    "Names of the folders in each folder"
    inside = defaultdict(set)
    for folder in {parts[:-1] for parts in images}:
        for n in range(len(folder)):
            inside[folder[:n]].add(folder[n])
    return inside


def check_inner(
    source: Source,  # Files of the data set
    places: Mapping[tuple[str, ...], tuple],  # (split, class, index of its folder in the parts) by path of the image
    splits: Mapping[tuple[str, ...], str],  # By folder
):
    "Raise KdfastError for splits beside classes, or in one: train/valid/cat beside train/cat."
    classes, inside = defaultdict(set), _folders_inside(places)
    for parts, (_, label, depth) in places.items():
        classes[parts[:depth]].add(label)
    for folder in sorted(folder for folder in inside if folder[:-1] in classes):
        beside, name = classes[folder[:-1]] - {folder[-1]}, '/'.join(folder)
        shared = sorted(beside & inside[folder])
        if split_of(folder[-1]) and shared:
            raise KdfastError(
                f'{source.path}: {name} is named after a split, and has folders of the classes {listed(shared)}, which '
                f'are also beside it: move it out of {"/".join(folder[:-1])}/, or its images out of these folders'
            )
        found = {splits.get((*folder, below)) for below in inside[folder]} - {None}
        if folder[-1] in classes[folder[:-1]] and {'train'} < found:
            has_classes = any(inside[*folder, below] for below in inside[folder])
            inner = '/'.join(folder if has_classes else folder[:-1])
            raise KdfastError(
                f'{source.path}: {name} is in a folder of {SPLIT_NAMES[splits[folder[:-1]]]} images, and has folders '
                f'of splits in it ({listed(sorted(inside[folder]))}): pass --data {source.path}/{inner}'
            )


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


def note_named_like_splits(
    source: Source,  # Files of the data set
    labels: Mapping[str, set[str]],  # Names of the classes by split
):
    "Add a note on classes that only the training images have, and that have the name of a split."
    others = set().union(*(names for split, names in labels.items() if split != 'train'))
    for name in sorted(labels.get('train', set()) - others):
        if split_of(name):
            source.notes.add('classes that are named after splits, in the folder of training images', name)


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
