"Recognize the names of splits: of folders, of files, and in the cells of tables."

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

SPLIT_NAMES = dict(train='training', valid='validation', test='test')  # in messages
SPLIT_WORDS = dict(
    train='train training trn trainval'.split(),
    valid='valid validation validate val dev devel development eval evaluation holdout publictest'.split(),
    test='test testing tst privatetest'.split(),
)
SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}

# Words that may stand beside the name of a split: train_images, Test Set
FILLER_WORDS = frozenset(
    'set split splits seg image images img imgs picture pictures pic pics photo photos data dataset '
    'sample samples file files folder label labels'.split()
)
WORD = re.compile(r'[A-Z]?[a-z]+|[A-Z]+')
SHARD = re.compile(r'\d+[-_]of[-_]\d+')  # 00000-of-00002


def split_of(
    word: str,  # Name of a folder or a file, or a cell of a table
) -> str | None:  # train, valid or test
    "Return the split that a name stands for (Training_Set, val2017, test-images), or None."
    letters = re.sub(r'[^a-z]', '', word.lower())
    words = [letters] if letters in SPLIT_OF_WORD else [w.lower() for w in WORD.findall(word)]
    found = {_split_of_word(w) for w in words if w not in FILLER_WORDS}
    return found.pop() if len(found) == 1 else None


def _split_of_word(word):
    return SPLIT_OF_WORD.get(word) or SPLIT_OF_WORD.get(word.removesuffix('set'))


def find_splits(
    paths: Iterable[tuple[str, ...]],  # Parts of paths
) -> dict[tuple[str, ...], str]:  # train, valid or test by path
    """Return the splits of the paths whose last part stands for one.

    pets-train and pets-test do, too: they differ in the split alone. But train_station is a class, and so is pets-train
    beside train.
    """
    splits, siblings = {}, defaultdict(dict)
    for path in dict.fromkeys(paths):
        if split := split_of(path[-1]):
            splits[path] = split
        elif named := _rest_and_split(path[-1]):
            siblings[path[:-1], named[0]][path] = named[1]
    with_splits = {path[:-1] for path in splits}
    for (parent, _), group in siblings.items():
        if len(set(group.values())) > 1 and parent not in with_splits:
            splits |= group
    return splits


def _rest_and_split(name):
    "The other words of a name that has one word of a split, and this split; None for other names"
    words = [word.lower() for word in WORD.findall(SHARD.sub('', name))]
    found = [word for word in words if _split_of_word(word)]
    if len(found) != 1:
        return None
    return ' '.join(word for word in words if word not in (*found, *FILLER_WORDS)), _split_of_word(found[0])


def find_folder_splits(
    files: Iterable[tuple[str, ...]],  # Parts of the paths of files
) -> dict[tuple[str, ...], str]:  # train, valid or test by folder
    "Return the splits of the folders that files are in."
    folders = {parts[:-1] for parts in files}
    return find_splits(sorted({folder[:n] for folder in folders for n in range(1, len(folder) + 1)}))


def splits_of_files(
    names: Iterable[str],  # Such as data/train-00000-of-00002.parquet
) -> dict[str, str | None]:  # train, valid or test
    "Return the splits by the names of files, else by their nearest folders that are named after a split."
    paths = {name: PurePosixPath(name).parts for name in names}
    splits = find_splits(parts[:n] for parts in paths.values() for n in range(1, len(parts) + 1))
    found = {}
    for name, parts in paths.items():
        own = split_of(re.split(r'[-.]', parts[-1])[0]) or split_of(PurePosixPath(name).stem)
        nearest = (splits.get(parts[:n]) for n in range(len(parts), 0, -1))
        found[name] = own or next(filter(None, nearest), None)
    return found
