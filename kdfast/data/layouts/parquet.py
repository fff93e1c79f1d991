"Parquet and Arrow files of Hugging Face: image bytes beside ClassLabels."

import io
import re
from functools import partial

from kdfast.core.errors import KdfastError
from kdfast.data.files import READ_ERRORS
from kdfast.data.labels import INDICATORS_NOTE, are_indicators, is_missing, positions_of_ones
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.parquet_file import ParquetFile
from kdfast.data.layouts.split_files import read_file_splits

PRIORITY = 10  # before WebDataset and tables: a data set of Hugging Face may hold both beside its Parquet files
SUFFIXES = ('.parquet', '.arrow')
NEWLINE = '\n'  # pyarrow explains errors in several lines
SHARD = re.compile(r'(?P<before>.*-)(?P<number>\d+)-of-(?P<n>\d{1,5})(?P<after>\..*)')  # train-00000-of-00002.parquet


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there are Parquet or Arrow files, and no image files."
    return bool(_file_names(source)) and not source.images


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images in the order of the rows. Raises KdfastError for unknown columns."
    try:
        import pyarrow  # noqa: F401
    except ImportError as e:
        raise KdfastError(f"{source.path}: Parquet files need pyarrow: pip install 'kdfast[hf]'") from e
    _note_missing_shards(source)
    splits = read_file_splits(source, _file_names(source))
    files = {name: _open_parquet(source, name, splits[name]) for name in sorted(splits)}
    files = {name: file for name, file in files.items() if file}
    names = (file.class_names.get(label_column) for file, _, label_column, _ in files.values())
    items, classes = [], next(filter(None, names), None)
    indicators = _are_indicators(source, [label for *_, labels in files.values() for label in labels], classes)
    for name, (file, image_column, label_column, labels) in files.items():
        for i, label in enumerate(labels):
            row = f'{name}#{i:07}'
            if is_missing(label) and source.several:
                label = []
            label = positions_of_ones(label) if indicators and isinstance(label, list) else label
            is_unlabeled = is_missing(label) or not isinstance(label, list) and label == -1
            class_name = '' if is_unlabeled else file.class_of(label, label_column, row)
            items.append(Item(row, splits[name], class_name, partial(_open_image, file, image_column, i)))
    return Listing('Parquet with images', items, classes)


def _open_parquet(source, name, split):
    """(file, its columns of images and of labels, all labels); None for test images without a column of labels

    Raises KdfastError for a damaged file.
    """
    try:
        file = ParquetFile(source.files[name], name, f'{source.path}: {name}', source.columns, source.several)
        image_column, label_column = file.choose_columns()
        if label_column is None and split == 'test':
            source.notes.add('skipped, test images without labels', name)
            return None
        if label_column is None:
            raise KdfastError(file.no_labels_message())
        return file, image_column, label_column, list(file.iter_column(label_column))
    except _damage_errors() as e:
        raise KdfastError(f'cannot read {source.path}: {name} ({str(e).partition(NEWLINE)[0]})') from e


def _damage_errors():
    "What pyarrow raises for a damaged file"
    from pyarrow import ArrowException

    return (*READ_ERRORS, ArrowException, ValueError, LookupError, TypeError, AttributeError, MemoryError)


def _note_missing_shards(source):
    "Add a note on files that are missing by the numbers in the names of the others: one may train on a part"
    numbers = {}
    for match in filter(None, map(SHARD.fullmatch, _file_names(source))):
        numbers.setdefault((match['before'], match['n'], match['after']), set()).add(int(match['number']))
    for (before, n, after), there in numbers.items():
        for number in range(int(n)):
            if number not in there:
                source.notes.add('shards that are missing', f'{before}{number:0{len(n)}}-of-{n}{after}')


def _are_indicators(source, labels, classes):
    "Whether the lists of all files hold a 0 or 1 for each class"
    lists = [label for label in labels if isinstance(label, list)]
    if not source.several or not are_indicators(lists, str(source.path), classes and len(classes)):
        return False
    source.notes.add(INDICATORS_NOTE, '')
    return True


def _file_names(source):
    return [name for name in source.files if name.lower().endswith(SUFFIXES)]


def _open_image(file, column, i):
    "The bytes of an image, as a binary file. Raises OSError for a file that is damaged"
    try:
        value = file.value(column, i)
    except (*_damage_errors(), StopIteration) as e:
        raise OSError(f'{file.where} is damaged: {str(e).partition(NEWLINE)[0]}') from e
    content = value.get('bytes') if isinstance(value, dict) else value
    if content is None:
        path = value.get('path') if isinstance(value, dict) else None
        raise OSError('it has no bytes' + (f', only the path {path}' if path else ''))
    return io.BytesIO(content)
