"Shards of WebDataset: in a .tar, files of one name belong together, 000.jpg and 000.cls or 000.json."

import io
import json
import tarfile
from functools import partial
from pathlib import PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.core.paths import is_unsafe_path
from kdfast.data.archives import machine_made
from kdfast.data.formats import suffixes
from kdfast.data.layouts.base import Item, Listing, Source, split_of
from kdfast.data.layouts.columns import LABELS, plain

LABEL = '.cls', '.cls.txt', '.label', '.json', '.txt'  # in this order
CLASSES = 'classes.txt', 'classnames.txt', 'class_names.txt', 'labels.txt'  # a name a line, beside the shards


def matches(source: Source) -> bool:
    "A folder of shards without other images, or an archive that is one"
    if shards(source) and not source.images or any(name.endswith(LABEL[:3]) for name in source.files):
        return True
    return (
        source.path.is_file()
        and bool(source.images)
        and all(f'{image.partition(".")[0]}.json' in source.files for image in source.images)
    )


def shards(source):
    return sorted(name for name in source.files if name.lower().endswith('.tar'))


def read(source: Source) -> Listing:
    names, items = class_names(source), []
    found = (
        {shard: shard_files(source, shard) for shard in shards(source)}
        if shards(source) and not source.images
        else {source.path.name: source.files}
    )
    for shard, files in found.items():
        split = split_of_shard(shard)
        for key, parts in samples(files).items():
            images, where = [part for part in parts if f'.{part.rpartition(".")[2]}' in suffixes()], f'{shard}/{key}'
            if len(images) != 1:
                source.notes.add('left out, samples with no image or several', where)
                continue
            label = label_of(parts, files, names, f'{source.path}: {where}')
            if label is None:
                source.notes.add('left out, samples without a label', where)
            else:
                items.append(Item(f'{shard}/{parts[images[0]]}', split, label, files[parts[images[0]]]))
    if not items:
        raise KdfastError(
            f'{source.path}: found no image with a label in {listed(list(found))}: expected files such '
            'as 000.jpg and 000.cls'
        )
    return Listing('shards of WebDataset', items, names)


def split_of_shard(name):
    "By its name (train-000.tar), or the nearest folder"
    path = PurePosixPath(name)
    return next(filter(None, map(split_of, (path.stem.split('-')[0], path.stem, *reversed(path.parent.parts)))), None)


def shard_files(source, shard):
    "The files of a shard, which is not held open"
    try:
        with source.files[shard]() as f, tarfile.open(fileobj=f, mode='r:') as t:
            members = [(m.name, m.offset_data, m.size) for m in t if m.isfile()]
    except (tarfile.TarError, EOFError, OSError) as e:
        raise KdfastError(f'{source.path}: {shard} is not a readable shard ({e})') from e
    bad = [name for name, *_ in members if is_unsafe_path(name)]
    if bad:
        raise KdfastError(f'{source.path}: {shard}: {bad[0]!r} leads out of the archive')
    return {
        name.removeprefix('./'): partial(part, source.files[shard], start, size)
        for name, start, size in members
        if not machine_made(name.removeprefix('./'))
    }


def part(open_file, start, size):
    with open_file() as f:
        f.seek(start)
        return io.BytesIO(f.read(size))


def samples(files):
    "Names of files by what is before the first dot, and by what is behind it"
    found = {}
    for name in files:
        path = PurePosixPath(name)
        stem, _, rest = path.name.partition('.')
        if rest:
            found.setdefault((path.parent / stem).as_posix(), {})[f'.{rest.lower()}'] = name
    return found


def class_names(source):
    name = next((name for name in source.files if PurePosixPath(name).name in CLASSES), None)
    if not name:
        return None
    with source.files[name]() as f:
        return [line.strip() for line in f.read().decode().splitlines() if line.strip()]


def label_of(parts, files, names, where):
    "The class of a sample; None where it says none"
    suffix = next((suffix for suffix in LABEL if suffix in parts), None)
    if suffix is None:
        return None
    with files[parts[suffix]]() as f:
        said = f.read().decode(errors='replace').strip()
    if suffix == '.json':
        try:
            record = json.loads(said)
        except json.JSONDecodeError as e:
            raise KdfastError(f'{where}.json is no JSON ({e.msg})') from e
        if not isinstance(record, dict):
            record = dict(label=record)
        said = next(
            (
                record[key]
                for key in sorted(
                    record, key=lambda key: LABELS.index(plain(key)) if plain(key) in LABELS else len(LABELS)
                )
                if plain(key) in LABELS
            ),
            None,
        )
        if said is None:
            return None
        if isinstance(said, (list, dict)):
            raise KdfastError(f'{where} has {said!r:.60} for a label: expected one class an image')
        said = str(said)
    if names and said.isdigit():
        if int(said) >= len(names):
            raise KdfastError(f'{where} has label {said}, and there are {len(names)} classes')
        return names[int(said)]
    return said or None
