"Show how many images of a data set have been decoded."

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdfast.data.layouts.splits import SPLIT_NAMES


@contextmanager
def show_progress(
    path: Path,  # Of the images
    splits: dict[str, list],  # Images of each split
) -> Iterator[Callable]:  # A function that advances by a number of images
    "Show a bar on a terminal, else a line per split."
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        for split, items in splits.items():
            if items:
                message = f'kdfast: reading {len(items):,} {SPLIT_NAMES[split]} images from {path}'
                print(message, file=sys.stderr, flush=True)
        yield lambda n: None
        return
    columns = (
        TextColumn('reading {task.description}'),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task(path.name, total=sum(map(len, splits.values())))
        yield partial(bar.advance, task)
