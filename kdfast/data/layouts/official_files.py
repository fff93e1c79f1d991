"Find and read the files of a published data set: by their official names, each with its part in errors."

from collections.abc import Callable, Iterable, Sequence
from posixpath import basename  # many times as fast as pathlib, for a million files

from kdfast.core.errors import KdfastError, listed
from kdfast.data.files import READ_ERRORS
from kdfast.data.formats import wrong_download
from kdfast.data.layouts.base import Source


def find_official(
    source: Source,  # Files of the data set
    wanted: Iterable[str],  # Official names of files
) -> dict[str, str]:
    "Return the names in the source by official name. Raises KdfastError for a name in several folders."
    wanted, found = set(wanted), {}
    for name in source.files:
        official = basename(name)
        if official in wanted:
            if official in found:
                raise KdfastError(
                    f'{source.path}: found {found[official]} and {name}: pass the folder of one of the data sets'
                )
            found[official] = name
    return found


def check_complete(
    source: Source,  # Files of the data set
    found: Iterable[str],  # Official names of the files that are there
    expected: Iterable[str],  # Official names of files without which images would be missing
):
    "Raise KdfastError, with their names, for missing files."
    missing = sorted(set(expected) - set(found))
    if missing:
        raise KdfastError(f'{source.path}: no {listed(missing)}: download or unpack the data set again')


def note_others(
    source: Source,  # Files of the data set
    used: Iterable[str],  # Names in the source
    layout: str,  # Name of the layout
):
    "Add a note on all other files."
    used = set(used)
    for name in source.files:
        if name not in used:
            source.notes.add(f'skipped, not part of {layout}', name)


def read_whole(
    open_file: Callable,  # Return the file, opened for binary reading
    where: str,  # Name of the file in errors
) -> bytes:
    "Return the content of a file. Raises KdfastError for one that cannot be read, and for a web page."
    try:
        with open_file() as file:
            content = file.read()
    except READ_ERRORS as e:
        raise KdfastError(f'cannot read {where} ({e}): download it again') from e
    problem = wrong_download(content)
    if content and not content.strip(b'\0'):
        problem = 'zeros alone: copy it again'
    if problem:
        raise KdfastError(f'cannot read {where}: it is {problem}')
    return content


def read_text(
    open_file: Callable,  # Return the file, opened for binary reading
    where: str,  # Name of the file in errors
) -> str:
    "Return the text of a file. Raises KdfastError for one that cannot be read, or is not UTF-8."
    try:
        return read_whole(open_file, where).decode('utf-8-sig')
    except UnicodeDecodeError as e:
        raise KdfastError(f'{where} is not UTF-8 ({e.reason}): save it as UTF-8') from e


def read_class_names(
    source: Source,  # Files of the data set
    name: str,  # Of a text file in the source, with one class per line
) -> list[str]:
    "Return the names of the classes. Raises KdfastError for a file that cannot be read or has none."
    where = f'{source.path}: {name}'
    lines = read_text(source.files[name], where).splitlines()
    return check_names(source, name, [line.strip() for line in lines if line.strip()])


def note_missing_names(
    source: Source,  # Receives the note
    official: str,  # Name of the missing file
):
    "Add a note on classes without names."
    source.notes.add(f'classes are called by their numbers, because there is no {official}', '')


def check_names(
    source: Source,  # Files of the data set
    name: str,  # Of the file with the names
    classes: list[str],  # Its names of classes
) -> list[str]:
    "Return the names of the classes. Raises KdfastError for none."
    if not classes:
        raise KdfastError(f'{source.path}: {name} has no names of classes: download it again')
    return classes


def unique_or_none(
    source: Source,  # Receives the note
    classes: list[str],  # Names of classes
) -> list[str] | None:
    "Return the names of the classes; None, with a note, if two are equal: their numbers are their names."
    twice = next((name for i, name in enumerate(classes) if name in classes[:i]), None)
    if twice is None:
        return classes
    source.notes.add('names of classes ignored, because they are not unique', twice)
    return None


def name_labels(
    labels: Sequence[int],  # Of each image
    classes: list[str] | None,  # Names of the classes; None: their numbers are their names
    where: str,  # Name of the file with the labels in errors
    names_file: str,  # Name of the file with the names of the classes, if there is one
) -> list[str]:
    "Return the name of the class of each image. Raises KdfastError for numbers without a name."
    low, high = min(labels, default=0), max(labels, default=0)
    if low < 0 or classes and high >= len(classes):
        found = low if low < 0 else high
        names = f'{len(classes)} names of classes in {names_file}' if classes else 'labels begin with 0'
        raise KdfastError(f'{where} has the label {found}, but {names}')
    return [classes[label] for label in labels] if classes else list(map(str, labels))
