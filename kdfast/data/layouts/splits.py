"Recognize the names of splits: of folders, of files, and in the cells of tables."

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import PurePath, PurePosixPath

from kdfast.core.errors import KdfastError, listed
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
WORD_OR_NUMBER = re.compile(rf'{WORD.pattern}|\d+')
JOINED_NOTE = 'taken for splits, because their names differ in nothing else'
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
    beside or below train. Of names such as petstrain, one must be that of training images: interval and contest are
    words. The only path in a split that names it again is of this split: petstrain/petstrain.
    """
    paths = dict.fromkeys(paths)
    splits, siblings = {path: split for path in paths if (split := split_of(path[-1]))}, defaultdict(dict)
    with_splits, exact = {path[:-1] for path in splits}, {path for path in splits if path[-1].lower() in SPLIT_OF_WORD}
    for path in paths:
        is_class = path[:-1] in with_splits or any(path[:n] in exact for n in range(1, len(path)))
        for rest, split in () if path in splits or is_class else _rests_and_splits(path[-1]):
            siblings[path[:-1], rest][path] = split
    found = defaultdict(set)
    for group in siblings.values():
        of_group = set(group.values())
        is_certain = 'train' in of_group or all(_has_word_of_split(path[-1]) for path in group)
        if len(of_group) > 1 and is_certain:
            for path, split in group.items():
                found[path].add(split)
    splits |= {path: min(of_path) for path, of_path in found.items() if len(of_path) == 1}
    return _without_containers(splits, exact) | _named_again(paths, splits)


def _without_containers(splits, exact):
    "The splits without folders of all images, whose names have other words: training_data/ with pets-train/"
    inside = defaultdict(set)
    for path, split in splits.items():
        inside[path[:-1]].add(split)
    return {path: split for path, split in splits.items() if path in exact or not {'train'} < inside[path]}


def _named_again(paths, splits):
    "The splits of the only paths in those of a split whose names have it, too"
    n_inside, found = Counter(path[:-1] for path in paths), {}
    for path in sorted(paths, key=len):
        split = splits.get(path[:-1]) or found.get(path[:-1])
        if split and path not in splits and n_inside[path[:-1]] == 1:
            if any(split == named for _, named in _rests_and_splits(path[-1])):
                found[path] = split
    return found


def find_unlike(
    paths: Iterable[tuple[str, ...]],  # That stand for no split
    are_alike: Callable,  # Whether two paths, given with the other words of their names, may be splits of one data set
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    "Return two paths named after different splits, whose names differ in more: fold1train and fold2test."
    named = [(path, rest, split) for path in paths for rest, split in _rests_and_splits(path[-1])]
    train = [(path, rest) for path, rest, split in named if split == 'train']
    others = [(path, rest) for path, rest, split in named if split != 'train']
    return next(((a[0], b[0]) for a in train for b in others if a[0] != b[0] and are_alike(a, b)), None)


def find_unions(
    splits: Mapping[tuple[str, ...], str | None],  # By path
    where: str | PurePath,  # Name of the data set in errors
) -> list[tuple[str, ...]]:
    """Return the paths that repeat the images beside them: trainval beside train and val.

    Raises KdfastError for such a path beside that of validation images alone.
    """
    names = {(path[:-1], _letters(path[-1])) for path, split in splits.items() if split}

    def is_beside(path, split):
        alone = [_letters(path[-1]).replace('trainval', word) for word in SPLIT_WORDS[split] if word != 'trainval']
        return any((path[:-1], name) in names for name in alone)

    unions = [path for path, split in splits.items() if split == 'train' and 'trainval' in path[-1].lower()]
    unions = [path for path in unions if is_beside(path, 'valid')]
    for path in unions:
        if not is_beside(path, 'train'):
            raise KdfastError(
                f'{where}: {"/".join(path)} is named after training and validation images together, and there are '
                'validation images beside it: remove these, or those of both from it, and rename it to train'
            )
    return unions


def _letters(name):
    "The letters of a name, and what separates them"
    return re.sub(r'\d', '', SHARD.sub('', name.lower()))


def _rests_and_splits(name):
    "The other words of a name that has one word of a split, and this split; all ways to read a name that joins words"
    words = [word.lower() for word in WORD_OR_NUMBER.findall(SHARD.sub('', name))]
    found = [i for i, word in enumerate(words) if _split_of_word(word)]
    if len(found) > 1:
        return []
    if found:
        return [(_rest(words, found[0], ''), _split_of_word(words[found[0]]))]
    return [
        (_rest(words, i, rest), split)
        for i, word in enumerate(words)
        if word.isalpha()
        for rest, split in take_apart(word)
    ]


def _rest(words, at, rest):
    """The other words of a name, given those of the word of a split

    Numbers in front tell the order, and those after the split tell the shard, unless they are of a fold.
    """
    words = [*words[:at], rest, *words[at + 1 :]]
    return _joined(
        word
        for i, word in enumerate(words)
        if word and (not word.isdigit() or 0 < i < at or i and words[i - 1].startswith('fold'))
    )


def _joined(words):
    return ' '.join(word for word in words if word not in FILLER_WORDS)


def _has_word_of_split(name):
    "Whether a name says its split in a word of its own: pets-train rather than petstrain"
    return any(_split_of_word(word.lower()) for word in WORD.findall(name)) or bool(split_of(name))


def note_joined(
    splits: Mapping[str, str | None],  # By the path of a folder or a file, or by a cell
    notes: Notes,  # Receives the note
    otherwise: str = 'rename them',  # What to do if they are no splits
):
    "Add a note on splits whose word is joined to another one: petstrain and petstest."
    joined = {
        path: SPLIT_NAMES[split]
        for path, split in splits.items()
        if split and not any(map(_has_word_of_split, PurePosixPath(path).parts))
    }
    if joined:
        found = listed([f'{path} is {name}' for path, name in joined.items()])
        notes.add(f'{JOINED_NOTE} (otherwise {otherwise}): {found}', '')


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


def unlike_message(
    where: PurePath,  # Name of the data set
    paths: tuple[tuple[str, ...], tuple[str, ...]],  # As `find_unlike` returns them
    otherwise: str,  # What to do if they are no splits
) -> str:
    "Return the error for splits whose names differ in more than the split, or in their folder."
    a, b = map('/'.join, paths)
    return (
        f'{where}: {a} and {b} seem to be named after splits, but differ in more than the split, or in their folder: '
        f'rename them, such as to pets-train and pets-test in one folder{otherwise}'
    )
