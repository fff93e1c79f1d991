"""Options that several commands share: one Annotated alias each, and groups of them as dataclasses."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from kdfast.cli.app import IMAGES, TRAINING
from kdfast.core.errors import KdfastError
from kdfast.data.built_in import PHOTOGRAPHS
from kdfast.runs.options import option_flags

DEFAULT_RUNS = Path('runs')

# Of commands that read results

RunsOption = Annotated[Path, typer.Option(help='Directory of the runs.')]
DataNameOption = Annotated[
    Optional[str], typer.Option('--data', help='Use only runs on this data set (its directory name under --runs).')
]
RunSeedOption = Annotated[Optional[int], typer.Option('--seed', help='Seed of the run (default: the lowest).')]
RunArgument = Annotated[str, typer.Argument(help='A recipe that has been run, or a run directory.')]
JsonOption = Annotated[bool, typer.Option('--json', help='Print the result as JSON.')]
MarginOption = Annotated[float, typer.Option(min=0, help='Smallest difference that matters, in percentage points.')]
MetricOption = Annotated[
    Optional[str],
    typer.Option(
        metavar='accuracy|balanced|f1|map',
        help='What verdicts judge: accuracy; balanced accuracy, the mean of the accuracies of the classes; or, for '
        'images with several labels, their F1 or the mean average precision of the labels (default: what a declared '
        'design judges, else accuracy or F1).',
    ),
]
TrustOption = Annotated[
    bool, typer.Option('--trust-code', help='Run code that came with a run or file. Read that code first.')
]

# Of the data set

DECODE_HELP = (
    'Decode images once, to the disk, or in every epoch (default: once, if that fits three quarters of its space).'
)
WORKERS_HELP = 'Threads that decode images (default: one per core). They change no pixel.'

DataOption = Annotated[
    str,
    typer.Option(
        rich_help_panel=IMAGES,
        help='Training data: a directory, archive or table (images in one folder per class, or listed in a table), '
        'or a data set by name: cifar10-small and digits are built in; cifar10, cifar100, imagenette and others.',
    ),
]
SizeOption = Annotated[
    Optional[int],
    typer.Option(rich_help_panel=IMAGES, help='Height and width in pixels, for images of different sizes.'),
]
GrowOption = Annotated[
    float,
    typer.Option(
        rich_help_panel=IMAGES,
        help='Progressive resizing: start training at this fraction of the image size; full size for the last '
        'quarter of the epochs.',
    ),
]
HoldoutOption = Annotated[
    float,
    typer.Option(
        rich_help_panel=IMAGES,
        help='Validate on this fraction of the training images, to tune options without the validation set '
        '(default: 0.2 if the data set has no validation images).',
    ),
]
AugmentOption = Annotated[
    Optional[str],
    typer.Option(
        rich_help_panel=TRAINING,
        help='Augmentation: none, shift (or crop), flip (shift and mirror), or strong (also TrivialAugment). '
        'Default: flip, but shift if classes are sides, digits or letters.',
    ),
]
ColumnsOption = Annotated[
    Optional[str],
    typer.Option(
        rich_help_panel=IMAGES,
        help='Columns of a table: name=COLUMN,label=COLUMN,split=COLUMN, or some; '
        'label=A+B+C for a column of 0 and 1 for each class.',
    ),
]
RangeOption = Annotated[
    Optional[str],
    typer.Option(
        rich_help_panel=IMAGES,
        help='LOW:HIGH, the values that become black and white, for images with more than 8 bits per channel '
        '(default: by bit depth).',
    ),
]
BatchSizeOption = Annotated[
    Optional[int],
    typer.Option(
        rich_help_panel=TRAINING,
        help='Training images per batch (default: 128, less for a small training set). Smaller batches need less '
        'memory, and often a lower --lr.',
    ),
]
SkipBrokenOption = Annotated[
    bool,
    typer.Option('--skip-broken', rich_help_panel=IMAGES, help='Skip images that cannot be read, and report how many.'),
]
LabelsOption = Annotated[
    Optional[str],
    typer.Option(
        rich_help_panel=IMAGES,
        metavar='one|several|spaces',
        help='Labels of an image: one, or several: a list, text separated by ; or | (spaces: by spaces), or a column '
        'of 0 and 1 for each class (default: one).',
    ),
]
ResplitOption = Annotated[
    bool,
    typer.Option(
        '--resplit',
        rich_help_panel=IMAGES,
        help='Draw a split of its own for each seed, the same for all recipes: with --holdout, or without validation '
        'images.',
    ),
]

# Of training

SeedOption = Annotated[int, typer.Option(help='Seed of the initial weights, the image order and the augmentation.')]
TensorboardOption = Annotated[
    bool, typer.Option('--tensorboard', help='Also write losses and accuracies for TensorBoard to the run directory.')
]
ThreadsOption = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        rich_help_panel=TRAINING,
        help='Threads on a CPU (default: one per core). They affect the last bits of the weights.',
    ),
]
EpochsOption = Annotated[Optional[int], typer.Option(help='Epochs of every run, except of the teacher and stage one.')]
TeacherEpochsOption = Annotated[
    Optional[int], typer.Option(min=0, help='Epochs of the teacher; 0 uses --teacher NAME@FILE as it is.')
]
UnlabeledOption = Annotated[
    Optional[str], typer.Option(metavar='PATH', help='Directory or archive of further images, for finetune.')
]


@dataclass
class DataOptions:
    "The data set, and how its images are read, split, augmented and batched."

    data: DataOption = PHOTOGRAPHS
    size: SizeOption = None
    grow: GrowOption = 1.0
    holdout: HoldoutOption = 0.0
    augment: AugmentOption = None
    columns: ColumnsOption = None
    range: RangeOption = None
    batch_size: BatchSizeOption = None
    skip_broken: SkipBrokenOption = False
    labels: LabelsOption = None
    decode: Annotated[
        Optional[str], typer.Option(rich_help_panel=IMAGES, metavar='once|each-epoch', help=DECODE_HELP)
    ] = None
    workers: Annotated[Optional[int], typer.Option(min=1, rich_help_panel=IMAGES, help=WORKERS_HELP)] = None


@dataclass
class RunOptions:
    "Options of every recipe, besides those of the data and the settings of kdfast.runs.options."

    seed: SeedOption = 0
    runs: RunsOption = DEFAULT_RUNS
    tensorboard: TensorboardOption = False
    threads: ThreadsOption = None
    trust_code: TrustOption = False
    resplit: ResplitOption = False
    json: JsonOption = False


@dataclass
class StudyOptions:
    "How many runs `study` and `matrix` train, where, and how many at the same time."

    seeds: Annotated[int, typer.Option(min=1, help='Number of seeds: 0, 1, 2, …')] = 5
    jobs: Annotated[
        Optional[int],
        typer.Option(
            min=1, help='Number of parallel runs (default: one per core; on GPUs as many as they have room for).'
        ),
    ] = None
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=TRAINING,
            help='Threads of each run. They affect the last bits of its weights; the number of jobs does not.',
        ),
    ] = 1
    ray: Annotated[
        Optional[str],
        typer.Option(
            metavar='ADDRESS',
            help='Train on this Ray cluster (auto or HOST:PORT). Its machines must share these files.',
        ),
    ] = None
    runs: RunsOption = DEFAULT_RUNS
    trust_code: TrustOption = False
    resplit: ResplitOption = False


def expand_groups(
    command: Callable,  # Its parameters that are annotated with a dataclass stand for the fields of that class
    first: Collection[inspect.Parameter] = (),  # Options that `command` receives as keywords, besides its own
    without: Collection[str] = (),  # Fields that are no options of this command; they keep their defaults
) -> Callable:
    "Return a function for Typer with one option per field; it collects the values and calls `command`."
    own = inspect.signature(command).parameters.values()
    groups = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
    parameters = list(first)
    for p in own:
        if p.name in groups:
            parameters += [q for q in inspect.signature(groups[p.name]).parameters.values() if q.name not in without]
        elif p.kind is not inspect.Parameter.VAR_KEYWORD:
            parameters.append(p)

    @wraps(command)
    def expanded(**values):
        made = {}
        for name, group in groups.items():
            made[name] = group(**{f.name: values.pop(f.name) for f in fields(group) if f.name in values})
        return command(**values, **made)

    expanded.__signature__ = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])
    expanded.__annotations__ = {p.name: p.annotation for p in parameters}
    return expanded


def changed_flags(
    options: Any,  # One of the groups above
    only: Collection[str] = (),  # Fields to look at; all of them if empty
) -> list[str]:
    "Return the words of a command line for the options that are not at their defaults."
    values = {f.name: (getattr(options, f.name), f.default) for f in fields(options) if not only or f.name in only}
    return option_flags({name: value for name, (value, default) in values.items() if value != default})


def to_fraction(
    margin: float,  # In percentage points
) -> float:
    "Convert --margin to a fraction. Raises KdfastError for infinity and nan."
    if not isfinite(margin):
        raise KdfastError(f'--margin {margin}: expected a number of percentage points')
    return margin / 100
