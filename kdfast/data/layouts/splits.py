"Recognize the names of splits: of folders, of files, and in the cells of tables."

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import PurePosixPath

from kdfast.core.notes import Notes

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
# What makes other words of those of splits: retrain beside retest and trainers beside testers are classes
AFFIXES = frozenset('de re pre over under s er ers ed ee ees able ability'.split())
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
    "The split that a word stands for, also joined to a filler word (testset, trainimages), or None"
    if word in SPLIT_OF_WORD:
        return SPLIT_OF_WORD[word]
    for found, split in SPLIT_OF_WORD.items():
        if found in word and {word.removesuffix(found), word.removeprefix(found)} & FILLER_WORDS:
            return split
    return None


@cache
def take_apart(
    word: str,  # Lowercase letters
) -> list[tuple[str, str]]:
    "Return each (rest, split) of a word that the word of a split is joined to: petstrain, trainpets."
    found = []
    for at in range(1, len(word)):
        for rest, end in ((word[:at], word[at:]), (word[at:], word[:at])):
            if rest not in AFFIXES and (split := _split_of_word(end)):
                found.append((rest, split))
    return found


def find_splits(
    paths: Iterable[tuple[str, ...]],  # Parts of paths
) -> dict[tuple[str, ...], str]:  # train, valid or test by path
    """Return the splits of the paths whose last part stands for one.

    pets-train and pets-test do, too: they differ in the split alone. But train_station is a class, and so is pets-train
    beside train. Of names such as petstrain, one must be that of training images: interval and contest are words.
    """
    splits, siblings = {}, defaultdict(dict)
    for path in dict.fromkeys(paths):
        if split := split_of(path[-1]):
            splits[path] = split
        for rest, of_name in () if split else _rests_and_splits(path[-1]):
            siblings[path[:-1], rest][path] = of_name
    found, with_splits = defaultdict(set), {path[:-1] for path in splits}
    for (parent, _), group in siblings.items():
        of_group = set(group.values())
        is_certain = 'train' in of_group or all(_has_word_of_split(path[-1]) for path in group)
        if len(of_group) > 1 and is_certain and parent not in with_splits:
            for path, split in group.items():
                found[path].add(split)
    return splits | {path: min(of_path) for path, of_path in found.items() if len(of_path) == 1}


def _rests_and_splits(name):
    "The other words of a name that has one word of a split, and this split; all ways to read a name that joins words"
    words = [word.lower() for word in WORD.findall(SHARD.sub('', name))]
    found = [word for word in words if _split_of_word(word)]
    if len(found) == 1:
        return [(_joined(word for word in words if word != found[0]), _split_of_word(found[0]))]
    if found:
        return []
    return [
        (_joined((*words[:i], rest, *words[i + 1 :])), split)
        for i, word in enumerate(words)
        for rest, split in take_apart(word)
    ]


def _joined(words):
    return ' '.join(word for word in words if word not in FILLER_WORDS)


def _has_word_of_split(name):
    "Whether a name says its split in a word of its own: pets-train rather than petstrain"
    return any(_split_of_word(word.lower()) for word in WORD.findall(name)) or bool(split_of(name))


def note_joined(
    splits: Mapping[str, str | None],  # By the path of a folder or a file
    notes: Notes,  # Receives the note
):
    "Add a note on splits whose word is joined to another one: petstrain and petstest."
    for path, split in splits.items():
        if split and not any(map(_has_word_of_split, PurePosixPath(path).parts)):
            notes.add('taken for splits, because their names differ in nothing else', f'{path}: {SPLIT_NAMES[split]}')


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
