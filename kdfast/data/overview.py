"What a data set holds, what training will do with it, and the command to type next."

import shlex
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdfast.data import augment, imagenette
from kdfast.data.archives import READ_ERRORS
from kdfast.data.cache import mirroring_note
from kdfast.data.dataset import presized_side
from kdfast.data.decode import Reading, SizesDiffer, opened
from kdfast.data.pixels import picture_size
from kdfast.data.sources import load

SIZES = 32, 48, 64, 96, 128  # that are proposed for photographs
LOOKED_AT = 500  # images, to propose a size
SHOWN = 40  # classes
WIDTH = 30  # characters of the longest bar
SPLITS = dict(train='training', valid='validation', test='test')


def facts(
    source: str,  # As --data takes it
    **options,  # Others of kdfast.data.load
) -> dict:
    """Decode the data set and describe it. Images of several sizes are brought to a size that suits them.

    Raises KdfastError as `load` does.
    """
    asked = options.get('size')
    try:
        if source in imagenette.URLS and not asked:
            options['size'] = SIZES[-1]
        data = load(source, **options)
    except SizesDiffer:
        options['size'] = proposed(source, options)
        data = load(source, **options)
    splits = {split: getattr(data, split)[1] for split in SPLITS if getattr(data, split) is not None}
    counts = {SPLITS[split]: np.bincount(labels, minlength=len(data.classes)) for split, labels in splits.items()}
    about = data.about or {}
    height, width = data.shape
    return dict(
        source=source,
        name=data.name,
        layout=about.get('layout'),
        images={split: int(n.sum()) for split, n in counts.items()},
        classes={
            name: {split: int(n[label]) for split, n in counts.items()} for label, name in enumerate(data.classes)
        },
        files=dict(kinds=about.get('kinds'), widths=about.get('widths'), heights=about.get('heights')),
        shown=[width, height],
        skipped=data.skipped,
        notes=list(data.notes),
        will=will(data, asked, options.get('size')),
        next=next_command(source, options),
    )


def proposed(source, options):
    "A size for photographs of several sizes: at most that of half of them, and at most the largest of SIZES"
    reading = Reading(options.get('columns'), options.get('range'), options.get('skip_broken', False))
    with opened(Path(source).expanduser(), reading) as (_, found):
        items = found.splits['train']
        some = items[:: max(1, len(items) // LOOKED_AT)]
        sides = [min(size) for size in map(size_of, some) if size]
    return max((size for size in SIZES if not sides or size <= np.median(sides)), default=SIZES[0])


def size_of(item):
    try:
        return picture_size(item.open())
    except READ_ERRORS:
        return None  # decoding will name it


def will(data, asked, size):
    "What training does with the images, a sentence each"
    said = []
    if size:
        side = presized_side(size)
        said += [
            f'images are scaled until their shorter side is {side} pixels, and their middle {side}×{side} is '
            f'kept; training crops {size}×{size} of it at random'
        ]
        if not asked:
            said += [f'--size {size} was chosen here, as images differ in size: pass it or another one']
    elif data.augment != 'none':
        said += ['training shifts images by up to a sixteenth of their side']
    if data.augment in ('flip', 'shift'):
        return [*said, mirroring_note(data.augment)]
    return [*said, f'--augment {data.augment}: {augment.MEANING[data.augment]}']


def next_command(source, options):
    "What trains a teacher, a student alone and one that learns from the teacher, and compares the two"
    usual = dict(holdout=0.0, grow=1.0)
    given = {name: value for name, value in options.items() if value not in (None, False) and value != usual.get(name)}
    return shlex.join(
        [
            'kdfast',
            'study',
            'baseline',
            'kd',
            '--data',
            source,
            *(
                word
                for name, value in given.items()
                for word in ([flag(name)] if value is True else [flag(name), str(value)])
            ),
        ]
    )


def flag(name):
    return f'--{name.replace("_", "-")}'


def view(
    found: dict,  # From `facts`
) -> Group:
    "The facts for a terminal: the classes with a bar each."
    n, (width, height) = found['images'], found['shown']
    of_test = f', {n["test"]:,} test images apart' if 'test' in n else ''
    readable = f'{found["skipped"]:,} more cannot be read' if found['skipped'] else 'every one readable'
    parts = [
        Text(
            f'{found["source"]}: {n["training"]:,} training and {n["validation"]:,} validation images of '
            f'{width}×{height} in {len(found["classes"])} classes, {readable}{of_test}'
        )
    ]
    if found['layout']:
        parts += [Text(f'{found["layout"]}; {files(found["files"])}')]
    parts += [Text(), classes(found['classes']), Text()]
    parts += [Text(f'• {said}') for said in (*found['notes'], *found['will'])]
    return Group(*parts, Text.assemble(('\nnext  ', 'dim'), (found['next'], 'bold')))


def files(known):
    "Sizes and formats in words"

    def spread(sides):
        low, middle, high = sides
        return f'{low}' if low == high else f'{low} … {middle} … {high}'

    kinds = ', '.join(f'{kind} {n:,}' for kind, n in list(known['kinds'].items())[:4])
    return f'{spread(known["widths"])} pixels wide, {spread(known["heights"])} high; {kinds}'


def classes(counts):
    "A row a class, the largest and the smallest of many"
    names = list(counts)
    if len(names) > SHOWN:
        by_size = sorted(names, key=lambda name: -counts[name]['training'])
        names = [*by_size[: SHOWN // 2], None, *by_size[-SHOWN // 2 :]]
    most = max(count['training'] for count in counts.values())
    table = Table.grid(padding=(0, 2))
    for split in next(iter(counts.values())):
        table.add_column(justify='right')
    table.add_row(*(Text(split, 'dim') for split in next(iter(counts.values()))))
    for name in names:
        if name is None:
            table.add_row(Text(f'… {len(counts) - SHOWN:,} more', 'dim'))
        else:
            table.add_row(
                *(f'{n:,}' for n in counts[name].values()),
                Text(name),
                Text('━' * max(1, round(WIDTH * counts[name]['training'] / most)), 'cyan'),
            )
    return table
