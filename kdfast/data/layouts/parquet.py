"Parquet and Arrow files of Hugging Face: image bytes beside ClassLabels."

import io
from functools import partial

from kdfast.core.errors import KdfastError
from kdfast.data.labels import INDICATORS_NOTE, are_indicators, is_missing, positions_of_ones
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.parquet_file import ParquetFile
from kdfast.data.layouts.splits import splits_of_files

PRIORITY = 10  # before WebDataset and tables: a data set of Hugging Face may hold both beside its Parquet files
SUFFIXES = ('.parquet', '.arrow')


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
    files, items, classes, labels = {}, [], None, {}
    splits = splits_of_files(_file_names(source))
    for name in sorted(splits):
        files[name] = ParquetFile(source.files[name], name, f'{source.path}: {name}', source.columns, source.several)
        label_column = files[name].choose_columns()[1]
        classes = classes or files[name].class_names.get(label_column)
        labels[name] = _read_labels(files[name], label_column)
    indicators = _are_indicators(source, labels, classes)
    for name, file in files.items():
        image_column, label_column = file.choose_columns()
        for i, label in enumerate(labels[name]):
            row = f'{name}#{i:07}'
            if is_missing(label) or label == -1:
                source.notes.add('skipped, without a label', row)
                continue
            label = positions_of_ones(label) if indicators and isinstance(label, list) else label
            class_name = file.class_of(label, label_column, row)
            items.append(Item(row, splits[name], class_name, partial(_open_image, file, image_column, i)))
    return Listing('Parquet with images', items, classes)


def _are_indicators(source, labels, classes):
    "Whether the lists of all files hold a 0 or 1 for each class"
    lists = [label for of_file in labels.values() for label in of_file if isinstance(label, list)]
    if not source.several or not are_indicators(lists, str(source.path), classes and len(classes)):
        return False
    source.notes.add(INDICATORS_NOTE, '')
    return True


def _read_labels(file, column):
    "All labels. Raises KdfastError for a damaged file"
    import pyarrow

    try:
        return list(file.iter_column(column))
    except (pyarrow.ArrowException, OSError) as e:
        raise KdfastError(f'cannot read {file.where} ({str(e).splitlines()[0]})') from e


def _file_names(source):
    return [name for name in source.files if name.lower().endswith(SUFFIXES)]


def _open_image(file, column, i):
    "The bytes of an image, as a binary file. Raises OSError for a file that is damaged"
    from pyarrow import ArrowException

    try:
        value = file.value(column, i)
    except (ArrowException, StopIteration) as e:
        raise OSError(f'{file.where} is damaged: {str(e).partition(chr(10))[0]}') from e
    content = value.get('bytes') if isinstance(value, dict) else value
    if content is None:
        path = value.get('path') if isinstance(value, dict) else None
        raise OSError('it has no bytes' + (f', only the path {path}' if path else ''))
    return io.BytesIO(content)
