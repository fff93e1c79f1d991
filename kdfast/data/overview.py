"Describe a data set, what training will do with it, and the command to run next."

import shlex
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Group
from rich.text import Text

from kdfast.core.notes import notes_listed
from kdfast.core.tables import Table
from kdfast.data import imagenette, published
from kdfast.data.augment import MEANING
from kdfast.data.cache import mirroring_note
from kdfast.data.dataset import presized_side
from kdfast.data.decode import Reading, open_source
from kdfast.data.decode_choice import size_of
from kdfast.data.labels import class_counts
from kdfast.data.layouts.splits import SPLIT_NAMES
from kdfast.data.sources import load
from kdfast.data.split_writer import SizesDiffer
from kdfast.runs.options import given_options, option_flags

SIZES = (32, 48, 64, 96, 128)  # suggested for images of several sizes
N_MEASURED = 500  # images, to suggest a size
MAX_CLASSES = 40  # in the table
BAR_WIDTH = 30  # characters of the longest bar


def facts(
    source: str,  # As --data takes it
    **options,  # Others of kdfast.data.load
) -> dict:
    """Decode a data set and describe it; images of several sizes are scaled to a suggested size.

    Raises KdfastError as `load` does.
    """
    requested_size = options.get('size')
    if source in imagenette.URLS and not requested_size:
        options['size'] = SIZES[-1]
    with notes_listed():
        try:
            data = load(source, **options)
        except SizesDiffer:
            options['size'] = _suggest_size(source, options)
            data = load(source, **options)
    labels = {SPLIT_NAMES[split]: getattr(data, split)[1] for split in SPLIT_NAMES if getattr(data, split) is not None}
    counts = {split: class_counts(y, len(data.classes)) for split, y in labels.items()}
    about = data.about or {}
    height, width = data.shape
    return dict(
        source=source,
        name=data.name,
        layout=about.get('layout'),
        images={split: len(y) for split, y in labels.items()},
        classes={
            name: {split: int(n[label]) for split, n in counts.items()} for label, name in enumerate(data.classes)
        },
        **dict(labels_per_image={split: per_image(y) for split, y in labels.items()}) if data.several else {},
        files=dict(kinds=about.get('kinds'), widths=about.get('widths'), heights=about.get('heights')),
        shown=[width, height],
        skipped=data.skipped,
        notes=list(data.notes),
        will=_describe_training(data, requested_size, options.get('size')),
        next=_next_command(source, options),
    )


def per_image(
    labels: np.ndarray,  # (n, classes) of 0 and 1
) -> dict[int, int]:  # Images by their number of labels
    "Count the images with 0, 1, 2, … labels."
    return {n: int(images) for n, images in enumerate(np.bincount(labels.sum(1, dtype=np.int64)))}


def _suggest_size(source, options):
    "The largest of SIZES that is at most the shorter side of half of the images"
    reading = Reading(
        options.get('columns'), options.get('range'), options.get('skip_broken', False), options.get('labels')
    )
    if source in published.NAMES:
        found = nullcontext(published.find_images(source, reading))
    else:
        found = open_source(Path(source).expanduser(), reading)
    with found as (_, arrangement):
        items = arrangement.splits['train']
        sizes = map(size_of, items[:: max(1, len(items) // N_MEASURED)])
        sides = [min(size) for size in sizes if size]
    return max((size for size in SIZES if not sides or size <= median(sides)), default=SIZES[0])


def _describe_training(data, requested_size, size):
    "What training does with the images, one sentence per item"
    sentences = []
    if size:
        side = presized_side(size)
        sentences.append(
            f'images are scaled until their shorter side is {side} pixels, and cropped to the central {side}×{side}; '
            f'training takes random crops of {size}×{size}'
        )
        if not requested_size:
            sentences.append(f'--size {size} was chosen here, because images differ in size: pass it or another one')
    elif data.augment != 'none':
        sentences.append('training shifts images by up to a sixteenth of their side')
    if data.augment in ('flip', 'shift'):
        return [*sentences, mirroring_note(data.augment)]
    return [*sentences, f'--augment {data.augment}: {MEANING[data.augment]}']


def _next_command(source, options):
    "The command that trains a student with and without distillation, and compares both"
    return shlex.join(['kdfast', 'study', 'baseline', 'kd', '--data', source, *option_flags(given_options(options))])


def view(
    found: dict,  # From `facts`
) -> Group:
    "Format the facts for a terminal, with a bar per class."
    n, (width, height) = found['images'], found['shown']
    test = f', {n["test"]:,} test images' if 'test' in n else ''
    unreadable = f'{found["skipped"]:,} more cannot be read' if found['skipped'] else 'all readable'
    summary = (
        f'{found["source"]}: {n["training"]:,} training and {n["validation"]:,} validation images of '
        f'{width}×{height} in {len(found["classes"])} classes, {unreadable}{test}'
    )
    parts = [Text(summary)]
    if found['layout']:
        parts.append(Text(f'{found["layout"]}; {_describe_files(found["files"])}'))
    for split, found_labels in found.get('labels_per_image', {}).items():
        numbers = ', '.join(f'{k}: {images:,}' for k, images in found_labels.items())
        parts.append(Text(f'{split} images by their number of labels: {numbers}'))
    parts += [Text(), _class_table(found['classes']), Text()]
    parts += [Text(f'• {sentence}') for sentence in (*found['notes'], *found['will'])]
    command = Text.assemble(('\nnext  ', 'dim'), (found['next'], 'bold'), no_wrap=True, overflow='ignore')
    return Group(*parts, command)  # whole, so that it can be copied: print it without cropping


def _describe_files(files):
    "Sizes and formats in words"
    kinds = ', '.join(f'{kind} {n:,}' for kind, n in list(files['kinds'].items())[:4])
    return f'{_spread(files["widths"])} pixels wide, {_spread(files["heights"])} high; {kinds}'


def _spread(lengths):
    "Minimum, median and maximum in words"
    low, middle, high = lengths
    return f'{low}' if low == high else f'{low} … {middle} … {high}'


def _class_table(counts):
    "A row per class; of many classes the largest and the smallest"
    names = list(counts)
    if len(names) > MAX_CLASSES:
        by_size = sorted(names, key=lambda name: -counts[name]['training'])
        names = [*by_size[: MAX_CLASSES // 2], None, *by_size[-MAX_CLASSES // 2 :]]
    largest = max(count['training'] for count in counts.values())
    splits = list(next(iter(counts.values())))
    table = Table(box=None, padding=(0, 2), pad_edge=False, collapse_padding=True, header_style='dim')
    for split in splits:
        table.add_column(split, justify='right')
    table.key = len(splits)
    table.add_column(overflow='fold')
    table.add_column(overflow='crop', no_wrap=True)
    for name in names:
        if name is None:
            table.add_row(Text(f'… {len(counts) - MAX_CLASSES:,} more', 'dim'))
            continue
        bar = '━' * max(1, round(BAR_WIDTH * counts[name]['training'] / largest))
        table.add_row(*(f'{n:,}' for n in counts[name].values()), Text(name), Text(bar, 'cyan'))
    return table
