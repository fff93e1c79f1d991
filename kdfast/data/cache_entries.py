"Decoded data sets on disk: which there are, how much they take, and which no longer belong to anything."

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError, listed
from kdfast.data.cache import short_digest
from kdfast.data.naming import source_stamp


@dataclass(frozen=True)
class Entry:
    "A folder of the cache."

    folder: Path
    name: str  # Of the data set
    source: str  # Where its images were read from, if known
    images: int
    n_bytes: int
    used: float  # Last, seconds since 1970
    state: str  # current, stale (images have changed since), gone (there are none any more), downloaded, unfinished

    @property
    def facts(self):
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
    "What is in the cache, what was used last first."
    home = cache_home()
    found = [entry_of(folder) for folder in home.iterdir() if folder.is_dir()] if home.is_dir() else []
    return sorted(found, key=lambda entry: -entry.used)


def entry_of(folder):
    n_bytes = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    used = folder.stat().st_mtime
    try:
        facts = json.loads((folder / 'data.json').read_text())
    except (OSError, ValueError):
        facts = {}
    if not facts:
        return Entry(
            folder,
            folder.name,
            '',
            0,
            n_bytes,
            used,
            'downloaded'
            if folder.name == 'torchvision'
            else 'unfinished'
            if folder.name.startswith('new-')
            else 'unknown',
        )
    origin = facts.get('origin') or {}
    name = facts.get('name', folder.name) + (f',size={facts["size"]}' if facts.get('size') else '')
    return Entry(folder, name, origin.get('source', ''), n_images(folder), n_bytes, used, state(origin))


def n_images(folder):
    from numpy import load

    return sum(len(load(file, mmap_mode='r')) for file in folder.glob('*_labels.npy'))


def state(origin):
    "Whether the images are still as they were decoded"
    if not origin:
        return 'current'
    path = Path(origin['source'])
    if not path.exists():
        return 'gone'
    return 'current' if short_digest(source_stamp(path)) == origin['stamp'] else 'stale'


def clear(
    found: list[Entry],  # What there is
    names: list[str],  # Data sets or folders of the cache
    stale: bool,  # What belongs to no images any more, too
    everything: bool,
) -> list[Entry]:  # What was removed
    "Remove entries; a run that has one open reads on. Raises KdfastError where none is meant."
    unknown = [name for name in names if not any(meant(entry, name) for entry in found)]
    if unknown:
        raise KdfastError(
            f'nothing called {listed(unknown)} in {cache_home()}; there are '
            f'{listed(sorted({entry.name for entry in found})) or "no data sets"}'
        )
    if not (names or stale or everything):
        raise KdfastError('say what to clear: names, --stale for what has changed or gone since, or --all')
    chosen = [
        entry
        for entry in found
        if everything or stale and entry.state in ('stale', 'gone') or any(meant(entry, name) for name in names)
    ]
    for entry in chosen:
        shutil.rmtree(entry.folder)
    return chosen


def meant(entry, name):
    return name in (entry.name, entry.folder.name, entry.name.partition(',size=')[0])


def written(n_bytes):
    return f'{n_bytes / 2**30:.1f} GB' if n_bytes >= 2**30 else f'{n_bytes / 2**20:.1f} MB'


def table(
    found: list[Entry],
) -> Table:
    "A row an entry."
    made = Table.grid(padding=(0, 2))
    made.add_row(
        '[dim]data set[/]', '[dim]images[/]', '[dim]size[/]', '[dim]last used[/]', '[dim]state[/]', '[dim]read from[/]'
    )
    for entry in found:
        made.add_row(
            Text(entry.name),
            f'{entry.images:,}' if entry.images else '',
            written(entry.n_bytes),
            f'{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}',
            Text(entry.state, '' if entry.state == 'current' else 'yellow'),
            Text(entry.source, overflow='fold'),
        )
    return made
