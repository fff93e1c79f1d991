"Shards of WebDataset: tar files with 000.jpg and 000.cls or 000.json."

import json
import tarfile
from functools import partial
from pathlib import PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.data.archives import check_end, member_problem
from kdfast.data.files import READ_ERRORS, find_system_file, read_part
from kdfast.data.formats import image_suffixes
from kdfast.data.labels import INDICATORS_NOTE, QUESTION, are_indicators, is_missing, positions_of_ones
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.columns import usual_labels
from kdfast.data.layouts.official_files import read_class_names, read_text
from kdfast.data.layouts.split_files import read_file_splits

PRIORITY = 20  # before tables and folders: samples may come with .json and .txt files
LABEL_SUFFIXES = ('.cls', '.cls.txt', '.label', '.json', '.txt')  # the first one that exists holds the label
CLASS_FILES = ('classes.txt', 'classnames.txt', 'class_names.txt', 'labels.txt')  # one name per line


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the source is a folder of shards without other images, or a single shard."
    if _shard_names(source) and not source.images or any(name.endswith(LABEL_SUFFIXES[:3]) for name in source.files):
        return True
    return (
        source.path.is_file()
        and bool(source.images)
        and all(f'{_key(image)[0]}.json' in source.files for image in source.images)
    )


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the samples that have one image and a label. Raises KdfastError for shards that cannot be read."
    classes, samples = _class_names(source), []
    if _shard_names(source) and not source.images:
        shards = {name: _shard_files(source, name) for name in _shard_names(source)}
    else:
        shards = {source.path.name: source.files}
    splits = read_file_splits(source, shards)
    for shard in splits:
        files = shards[shard]
        for key, parts in _samples(files, f'{source.path}: {shard}').items():
            where = f'{shard}/{key}'
            images = [part for part in parts if f'.{part.rpartition(".")[2]}' in image_suffixes()]
            if len(images) != 1:
                source.notes.add('skipped, samples with no image or several', where)
                continue
            image = parts[images[0]]
            label = _label_of(parts, files, f'{source.path}: {where}', source.several)
            if label is None and source.several:
                source.notes.add('skipped, samples without a label', where)
                continue
            item = Item(f'{shard}/{image}', splits[shard], '' if label is None else label, files[image])
            samples.append((f'{source.path}: {where}', item))
    if not any(item.label for _, item in samples):
        raise KdfastError(
            f'{source.path}: found no image with a label in {listed(list(shards))}: '
            'expected files such as 000.jpg and 000.cls'
        )
    return Listing('shards of WebDataset', _with_class_names(source, samples, classes), classes)


def _with_class_names(source, samples, classes):
    "The items of (name of the sample in errors, item with a text or a list of texts as its label)"
    lists = [item.label for _, item in samples if isinstance(item.label, list)]
    indicators = are_indicators(lists, str(source.path), classes and len(classes))
    if indicators:
        source.notes.add(INDICATORS_NOTE, '')
    items = []
    for where, item in samples:
        label = item.label
        if isinstance(label, list):
            numbers = map(str, positions_of_ones(label)) if indicators else filter(None, label)
            label = tuple(dict.fromkeys(_class_name(one, classes, where) for one in numbers))
        else:
            label = _class_name(label, classes, where)
        items.append(item._replace(label=label))
    return items


def _shard_names(source):
    return sorted(name for name in source.files if name.lower().endswith('.tar'))


def _shard_files(source, shard):
    "Openers of the files of a shard, which is closed in between. Raises KdfastError for members as of an archive"
    try:
        with source.files[shard]() as file, tarfile.open(fileobj=file, mode='r:') as tar:
            members = [(m.name, m.isfile(), m.offset_data, m.size) for m in tar if not m.isdir()]
            check_end(tar)
        if not members:
            raise EOFError('it has no files')
    except READ_ERRORS as e:
        raise KdfastError(f'{source.path}: cannot read the shard {shard} ({e}): download it again') from e
    files = {}
    for name, is_regular, start, size in members:
        problem = member_problem(name, is_regular, name.removeprefix('./') in files)
        if problem:
            raise KdfastError(f'{source.path}: {shard}: {name!r} {problem}')
        name = name.removeprefix('./')
        if not find_system_file(name):
            files[name] = partial(read_part, source.files[shard], start, size)
    return files


def _key(name):
    "The sample of a file, and its suffix: what is before and after the first dot, which folders may have, too"
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition('.')
    return (path.parent / stem).as_posix(), suffix


def _samples(files, where):
    "Names of files by sample and by suffix. Raises KdfastError for a repeated key"
    samples = {}
    for name in files:
        key, suffix = _key(name)
        if not suffix:
            continue
        other = samples.setdefault(key, {}).setdefault(f'.{suffix.lower()}', name)
        if other != name:
            raise KdfastError(f'{where}: the key {key} is of several samples ({other}, {name}): give each its own key')
    return samples


def _class_names(source):
    "The names of the classes, if a file defines them"
    name = next((name for name in source.files if PurePosixPath(name).name in CLASS_FILES), None)
    return read_class_names(source, name) if name else None


def _label_of(parts, files, where, several):
    "The class of a sample as text, or a list of all of its labels; None if it has none"
    suffix = next((suffix for suffix in LABEL_SUFFIXES if suffix in parts), None)
    if suffix is None:
        return None
    text = read_text(files[parts[suffix]], f'{where}{suffix}').strip()
    if suffix == '.json':
        return _label_in_json(text, where, several)
    return text or None


def _class_name(text, classes, where):
    "The name of a class, given its number or its name"
    if classes and text.isdecimal():
        if int(text) >= len(classes):
            raise KdfastError(f'{where} has label {text}, but there are {len(classes)} classes')
        return classes[int(text)]
    return text


def _label_in_json(text, where, several):
    "The value of the likeliest key, as text, or None; of several labels a list of texts"
    try:
        record = json.loads(text)
    except json.JSONDecodeError as e:
        raise KdfastError(f'{where}.json is not JSON ({e.msg})') from e
    if not isinstance(record, dict):
        record = dict(label=record)
    keys = usual_labels(list(record))
    label = record[keys[0]] if keys else None
    if is_missing(label) and several:
        return []  # as an empty cell of a table
    if isinstance(label, list) and several:
        return ['' if is_missing(one) else str(one) for one in label]
    if isinstance(label, (list, dict)):
        raise KdfastError(f'{where} has the label {label!r:.60}: {QUESTION}')
    return None if is_missing(label) else str(label)
