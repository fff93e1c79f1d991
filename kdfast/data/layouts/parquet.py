"Parquet and Arrow files with images inside, as Hugging Face has them: image bytes beside ClassLabels."

import io
import json
from functools import partial
from pathlib import PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Item, Listing, Source, split_of
from kdfast.data.layouts.columns import LABELS, plain

SUFFIXES = '.parquet', '.arrow'
KEYS = ('label', 'labels', 'fine_label', *LABELS)  # columns of labels, the likeliest first
ROWS = 64  # that are in memory at once


def matches(source: Source) -> bool:
    return bool(tables_of(source)) and not source.images


def tables_of(source):
    return [name for name in source.files if PurePosixPath(name).suffix.lower() in SUFFIXES]


def read(source: Source) -> Listing:
    try:
        import pyarrow
    except ImportError as e:
        raise KdfastError(
            f"{source.path}: Parquet needs a package that is not installed: pip install 'kdfast[hf]'"
        ) from e
    items, classes = [], None
    for name in sorted(tables_of(source)):
        table = Table(source, name)
        image, label = table.choose()
        classes = classes or table.names.get(label)
        split = split_of_table(name)
        for i, value in enumerate(table.column(label)):
            where = f'{name}#{i:07}'
            if value is None or value == -1:
                source.notes.add('left out, without a label', where)
            else:
                items.append(Item(where, split, table.class_of(value, label, where), partial(opened, table, image, i)))
    return Listing('Parquet with images', items, classes)


def split_of_table(name):
    "By its name (train-00000-of-00002.parquet), or the nearest folder"
    path = PurePosixPath(name)
    return next(
        filter(None, map(split_of, (path.name.split('-')[0].split('.')[0], path.stem, *reversed(path.parent.parts)))),
        None,
    )


class Table:
    "A file of rows: read some at a time, never all of them."

    def __init__(self, source, name):
        import pyarrow

        self.open = source.files[name]
        self.where = f'{source.path}: {name}'
        self.asked = source.columns
        self.parquet = name.lower().endswith('.parquet')
        self.rows, self.start = [], 0  # in memory, and the number of the first of them
        self.batches, self.reading = None, None  # those that follow, and the column they are of
        try:
            self.schema = self.reader(self.open()).schema
        except (pyarrow.ArrowException, OSError) as e:
            raise KdfastError(f'{self.where} cannot be read ({str(e).splitlines()[0]})') from e
        if self.parquet:
            self.schema = self.schema.to_arrow_schema()
        said = json.loads((self.schema.metadata or {}).get(b'huggingface', b'{}'))
        self.features = said.get('info', {}).get('features', {})
        self.names = {
            column: feature['names']
            for column, feature in self.features.items()
            if isinstance(feature, dict) and feature.get('_type') == 'ClassLabel' and feature.get('names')
        }

    def reader(self, f):
        import pyarrow.parquet

        if self.parquet:
            return pyarrow.parquet.ParquetFile(f)
        try:
            return pyarrow.ipc.open_stream(f)
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(self.open())

    def choose(self):
        "The columns of images and of labels: those that were asked for, else by their types and names"
        import pyarrow.types as kinds

        fields = {field.name: field.type for field in self.schema}
        for column in self.asked.values():
            if column not in fields:
                raise KdfastError(f'{self.where} has no column {column}; there are {listed(list(fields))}')

        def holds_images(name):
            kind = fields[name]
            if kinds.is_struct(kind):
                return 'bytes' in {kind.field(i).name for i in range(kind.num_fields)}
            return kinds.is_binary(kind) or kinds.is_large_binary(kind)

        images = [self.asked['name']] if 'name' in self.asked else [name for name in fields if holds_images(name)]
        if len(images) != 1:
            raise KdfastError(
                f'{self.where} has {listed(images) or "no column"} of image bytes; there are '
                f'{listed(list(fields))}: say which with --columns name=COLUMN,label=COLUMN'
            )
        if 'label' in self.asked:
            return images[0], self.asked['label']
        labels = (
            list(self.names)
            if len(self.names) == 1
            else sorted(
                (name for name in fields if plain(name) in KEYS and name not in images),
                key=lambda name: KEYS.index(plain(name)),
            )
        )
        if not labels:
            raise KdfastError(
                f'{self.where} has no column of labels; there are {listed(list(fields))}: say which '
                'with --columns label=COLUMN'
            )
        return images[0], labels[0]

    def column(self, name):
        "Its values, one after the other"
        for batch in self.read(name):
            yield from batch.column(0).to_pylist()

    def read(self, name):
        if self.parquet:
            yield from self.reader(self.open()).iter_batches(batch_size=ROWS, columns=[name])
        else:
            reader = self.reader(self.open())
            for batch in (
                reader
                if hasattr(reader, '__iter__')
                else (reader.get_batch(i) for i in range(reader.num_record_batches))
            ):
                yield batch.select([name])

    def value(self, name, i):
        "The value in row i, read on from where the last one was"
        if self.batches is None or self.reading != name or i < self.start:
            self.batches, self.reading, self.rows, self.start = self.read(name), name, [], 0
        while i >= self.start + len(self.rows):
            self.start += len(self.rows)
            self.rows = next(self.batches).column(0)
        return self.rows[i - self.start].as_py()

    def class_of(self, value, label, where):
        if isinstance(value, (list, dict)):
            raise KdfastError(f'{self.where}: {where} has {value!r:.60} in column {label}: expected one class an image')
        if isinstance(value, int) and label in self.names:
            if not 0 <= value < len(self.names[label]):
                raise KdfastError(
                    f'{self.where}: {where} has label {value}, and there are {len(self.names[label])} classes'
                )
            return self.names[label][value]
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def opened(table, column, i):
    "The bytes of an image, for a reader of files"
    found = table.value(column, i)
    content = found.get('bytes') if isinstance(found, dict) else found
    if content is None:
        raise OSError(
            'it has no bytes'
            + (f', only the path {found["path"]}' if isinstance(found, dict) and found.get('path') else '')
        )
    return io.BytesIO(content)
