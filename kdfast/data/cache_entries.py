"List, measure and clear the decoded data sets on disk."

import json
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.text import Text

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError, listed
from kdfast.core.format import size_text
from kdfast.core.once import NEW
from kdfast.core.tables import Table
from kdfast.data.cache import short_digest
from kdfast.data.naming import source_stamp

DOWNLOADS = 'torchvision'  # folder of the archives of published data sets
# Folders of images; others are no images that can be had again, such as the list of trusted code
ENTRY = re.compile(rf'[0-9a-f]{{16}}|{NEW}.+|{DOWNLOADS}')


@dataclass(frozen=True)
class Entry:
    "A folder of the cache."

    folder: Path
    name: str  # Of the data set
    source: str  # Path of the original images, if known
    images: int
    n_bytes: int
    used: float  # Last use, in seconds since 1970
    state: str  # current, stale (the images have changed), gone (they were removed), downloaded, unfinished, unknown

    @property
    def facts(self) -> dict:
        "The entry as JSON has it."
        return dict(
            name=self.name,
            state=self.state,
            source=self.source,
            images=self.images,
            bytes=self.n_bytes,
            used=datetime.fromtimestamp(self.used).isoformat(timespec='minutes'),
            path=str(self.folder),
        )


def entries() -> list[Entry]:
    "Return the entries of the cache, the last used first."
    home = cache_home()
    folders = [folder for folder in home.iterdir() if folder.is_dir()] if home.is_dir() else []
    found = [_read_entry(folder) for folder in folders if ENTRY.fullmatch(folder.name)]
    return sorted(found, key=lambda entry: -entry.used)


def _read_entry(folder):
    n_bytes = sum(file.lstat().st_size for file in folder.rglob('*') if not file.is_dir())
    used = folder.stat().st_mtime
    try:
        facts = dict(json.loads((folder / 'data.json').read_text('utf-8')))
    except (OSError, ValueError, TypeError):
        facts = {}
    origin = facts.get('origin') or {}
    if not facts or origin and not _is_origin(origin):
        return Entry(folder, folder.name, '', 0, n_bytes, used, _state_without_facts(folder))
    name = facts.get('name', folder.name) + (f',size={facts["size"]}' if facts.get('size') else '')
    return Entry(folder, name, origin.get('source', ''), _count_images(folder), n_bytes, used, _state(origin))


def _state_without_facts(folder):
    if folder.name == DOWNLOADS:
        return 'downloaded'
    return 'unfinished' if folder.name.startswith(NEW) else 'unknown'


def _is_origin(origin):
    "Whether the record of the original images is whole"
    return isinstance(origin, dict) and all(isinstance(origin.get(key), str) for key in ('source', 'stamp'))


def _count_images(folder):
    "The number of images; 0 if their labels are damaged, because a damaged entry can be cleared, too"
    from numpy import load

    try:
        return sum(len(load(file, mmap_mode='r')) for file in folder.glob('*_labels.npy'))
    except (OSError, ValueError, EOFError, TypeError):
        return 0


def _state(origin):
    "Whether the original images have changed since they were decoded"
    if not origin:
        return 'current'
    path = Path(origin['source'])
    if not path.exists():
        return 'gone'
    try:
        stamp = source_stamp(path)
    except (KdfastError, OSError):
        return 'stale'  # such as a broken link or a folder without permission, which were not there before
    return 'current' if short_digest(stamp) == origin['stamp'] else 'stale'


def clear(
    found: list[Entry],  # All entries of the cache
    names: list[str],  # Remove these data sets or folders of the cache
    stale: bool,  # Remove entries whose images have changed or were removed
    everything: bool,  # Remove all entries
) -> list[Entry]:  # The removed entries
    "Remove entries; a run that reads one continues. Raises KdfastError if nothing is selected."
    unknown = [name for name in names if not any(_has_name(entry, name) for entry in found)]
    if unknown:
        raise KdfastError(
            f'nothing called {listed(unknown)} in {cache_home()}; '
            f'there are {listed(sorted({entry.name for entry in found})) or "no data sets"}'
        )
    if not (names or stale or everything):
        raise KdfastError('nothing selected: pass names, --stale for changed and removed images, or --all')
    selected = [
        entry
        for entry in found
        if everything or stale and entry.state in ('stale', 'gone') or any(_has_name(entry, name) for name in names)
    ]
    for entry in selected:
        shutil.rmtree(entry.folder)
    return selected


def _has_name(entry, name):
    return name in (entry.name, entry.folder.name, entry.name.partition(',size=')[0])


def table(
    found: list[Entry],  # Entries of the cache
) -> Table:
    "Return a table with a row per entry."
    rows = Table.grid(padding=(0, 2))
    rows.add_row(*(f'[dim]{heading}[/]' for heading in ('data set', 'images', 'size', 'last used', 'state', 'source')))
    for entry in found:
        rows.add_row(
            Text(entry.name),
            f'{entry.images:,}' if entry.images else '',
            size_text(entry.n_bytes),
            f'{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}',
            Text(entry.state, '' if entry.state == 'current' else 'yellow'),
            Text(entry.source, overflow='fold'),
        )
    return rows
