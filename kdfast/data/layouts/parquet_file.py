"Read columns of Parquet and Arrow files, some rows at a time."

import json
from collections.abc import Callable, Iterator
from typing import Any

from kdfast.core.errors import KdfastError, listed
from kdfast.data.labels import QUESTION, is_missing
from kdfast.data.layouts.columns import LABEL_COLUMNS, usual_labels

LABEL_KEYS = ('label', 'labels', 'fine_label', *LABEL_COLUMNS)  # columns of labels, the likeliest first
BATCH_ROWS = 64  # in memory at once


class ParquetFile:
    "A Parquet or Arrow file with one image per row. Needs pyarrow."

    def __init__(
        self,
        open_file: Callable,  # Return the file, opened for binary reading
        name: str,  # Of the file; its suffix is the format
        where: str,  # Name of the file in errors
        columns: dict[str, str],  # Names of columns by role (name, label), from the user
        several: bool = False,  # Whether images have several labels
    ):
        import pyarrow

        self.open_file = open_file
        self.where = where
        self.requested = columns
        self.several = several
        self.is_parquet = name.lower().endswith('.parquet')
        self.batch, self.batch_start = [], 0  # rows in memory, and the number of the first
        self.batches, self.batches_column = None, None  # the batches that follow, and their column
        try:
            self.schema = self._reader().schema
        except (pyarrow.ArrowException, OSError) as e:
            raise KdfastError(f'cannot read {where} ({str(e).splitlines()[0]})') from e
        if self.is_parquet:
            self.schema = self.schema.to_arrow_schema()
        metadata = json.loads((self.schema.metadata or {}).get(b'huggingface', b'{}'))
        features = metadata.get('info', {}).get('features', {})
        self.class_names = {column: names for column, feature in features.items() if (names := _names(feature))}

    def _reader(self):
        import pyarrow.parquet

        if self.is_parquet:
            return pyarrow.parquet.ParquetFile(self.open_file())
        try:
            return pyarrow.ipc.open_stream(self.open_file())
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(self.open_file())

    def choose_columns(self) -> tuple[str, str | None]:  # (images, labels)
        """Choose columns: the requested ones, else by type and name; None if there is none of labels.

        Raises KdfastError if the choice is not clear.
        """
        fields = {field.name: field.type for field in self.schema}
        for column in self.requested.values():
            if column not in fields:
                raise KdfastError(f'{self.where} has no column {column}; the columns are {listed(list(fields))}')
        images = [name for name, kind in fields.items() if _may_hold_images(kind)]
        if 'name' in self.requested:
            images = [self.requested['name']]
        if len(images) != 1:
            found = listed(images) or 'no column'
            raise KdfastError(f'{self.where} has {found} of image bytes; {self._choice()} name=COLUMN,label=COLUMN')
        if 'label' in self.requested:
            return images[0], self.requested['label']
        labels = list(self.class_names)
        if len(labels) != 1:
            labels = usual_labels([name for name in fields if name not in images], LABEL_KEYS)
        return images[0], labels[0] if labels else None

    def no_labels_message(self) -> str:
        "Return the error for a file without a column of labels."
        return f'{self.where} has no column of labels; {self._choice()} label=COLUMN'

    def _choice(self):
        return f'the columns are {listed(self.schema.names)}: choose with --columns'

    def iter_column(
        self,
        name: str,  # Of the column
    ) -> Iterator:
        "Yield the values of a column."
        for rows in self._iter_batches(name):
            yield from rows.to_pylist()

    def _iter_batches(self, name):
        "Arrays with some rows of a column each"
        reader = self._reader()
        if self.is_parquet:
            for batch in reader.iter_batches(batch_size=BATCH_ROWS, columns=[name]):
                yield batch.column(0)
            return
        batches = reader
        if not hasattr(reader, '__iter__'):
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        for batch in batches:
            yield batch.select([name]).column(0)

    def value(
        self,
        name: str,  # Of a column
        i: int,  # Row; fastest in ascending order
    ) -> Any:
        "Return a value of a column."
        if self.batches is None or self.batches_column != name or i < self.batch_start:
            self.batches, self.batches_column = self._iter_batches(name), name
            self.batch, self.batch_start = [], 0
        while i >= self.batch_start + len(self.batch):
            self.batch_start += len(self.batch)
            self.batch = next(self.batches)
        return self.batch[i - self.batch_start].as_py()

    def class_of(
        self,
        label: Any,  # Value of a column of labels
        column: str,  # Its name
        row: str,  # Name of the row in errors
    ) -> str | tuple[str, ...]:  # Of a list, if images have several labels, all of its names
        "Return the name of a class. Raises KdfastError for other values, and for a number without a name."
        if isinstance(label, list) and self.several:
            return tuple(dict.fromkeys(self.class_of(one, column, row) for one in label if not is_missing(one)))
        if isinstance(label, (list, dict)):
            raise KdfastError(f'{self.where}: {row} has {label!r:.60} in column {column}: {QUESTION}')
        if isinstance(label, int) and column in self.class_names:
            names = self.class_names[column]
            if not 0 <= label < len(names):
                raise KdfastError(f'{self.where}: {row} has label {label}, but there are {len(names)} classes')
            return names[label]
        return str(int(label) if isinstance(label, float) and label.is_integer() else label)


def _names(feature):
    "The names of the classes of a ClassLabel, or of a sequence of ClassLabels"
    if isinstance(feature, dict) and feature.get('_type') in ('Sequence', 'List', 'LargeList'):
        feature = feature.get('feature')
    elif isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    is_class = isinstance(feature, dict) and feature.get('_type') == 'ClassLabel'
    return feature.get('names') if is_class else None


def _may_hold_images(kind):
    "Whether a column type is binary, or a struct with bytes"
    import pyarrow.types

    if pyarrow.types.is_struct(kind):
        return 'bytes' in {kind.field(i).name for i in range(kind.num_fields)}
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
