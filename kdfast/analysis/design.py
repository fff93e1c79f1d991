"Declared designs of studies: written before the first look, and never changed. Imports no torch."

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path

from kdfast.analysis.metrics import METRICS
from kdfast.core.atomic import write_json
from kdfast.core.errors import KdfastError
from kdfast.core.format import ranges
from kdfast.runs.run_dir import locate_run, utc_now
from kdfast.stats.sequential import LOOKS, Design, by_union_bound

FOLDER = 'designs'  # beside the recipes of a data set
KINDS: dict[str, type | tuple[type, ...]] = dict(
    against=str, margin=(int, float), declared=str, finished_before=int, metric=str, arguments=dict
)
ITEMS = dict(recipes=str, looks=int, contrasts=str, confidences=float)  # of lists


@dataclass(frozen=True)
class Declared:
    "What a study or the matrix question compares, and when it is looked at."

    against: str  # The baseline, as its directory is called
    recipes: tuple[str, ...]  # Compared with it, likewise; of the matrix question all of its recipes
    looks: tuple[int, ...]  # Seeds at each look; none: those of an earlier declaration, else the default
    margin: float  # Smallest difference that matters, as a fraction
    declared: str = ''  # When, UTC
    finished_before: int = 0  # Runs of these recipes that were finished then, and may have been looked at
    metric: str = 'accuracy'  # What verdicts judge, by its name in kdfast.analysis.metrics
    contrasts: tuple[str, ...] = ()  # Of the matrix question: the primary one, which decides, then the secondary one
    arguments: dict = field(default_factory=dict)  # Of the matrix question: those of all its runs
    confidences: tuple[float, ...] = ()  # Of the intervals at each look, once it is declared

    @property
    def comparisons(self) -> int:
        "Number of differences that share the 5 %; each contrast of the matrix question has its own."
        return 1 if self.contrasts else len(self.recipes)

    @property
    def design(self) -> Design:
        "The looks and their confidence."
        return Design(self.looks or LOOKS, self.comparisons, self.confidences)


def design_file(
    runs_dir: Path,  # Where runs are kept
    data: str,  # Name of the data set
    against: str,  # The baseline
    recipes: tuple[str, ...],  # Compared with it
) -> Path:
    "Return the file with the design of such a study; the order of its recipes does not matter."
    key = hashlib.sha256(json.dumps([against, sorted(recipes)]).encode()).hexdigest()[:12]
    return Path(runs_dir) / data / FOLDER / f'{key}.json'


def declare(
    runs_dir: Path,  # Where runs are kept
    data: str,  # Name of the data set
    wanted: Declared,  # The design to declare
) -> Declared:  # As it was declared the first time
    """Write a design before its first look; return the existing one if it is declared already.

    Raises KdfastError if the same study was declared with other looks or another margin.
    """
    design = wanted.design  # raises KdfastError for what is none, before anything is written
    file = design_file(runs_dir, data, wanted.against, wanted.recipes)
    if file.exists():
        known = read_design(file)
        looks = wanted.looks or known.looks
        if (known.looks, known.margin, known.metric) != (looks, wanted.margin, wanted.metric):
            raise KdfastError(
                f'this study was declared on {known.declared[:10]} with looks at {ranges(known.looks)} seeds, a '
                f'margin of {100 * known.margin:g} points and --metric {known.metric} ({file}), and its error rate '
                'holds for that alone. Give the same margin and metric and no other looks, or start a study of its own '
                'with --runs'
            )
        return known
    finished = sum(
        locate_run(runs_dir, data, name, seed).finished
        for name in (wanted.against, *wanted.recipes)
        for seed in range(design.last)
    )
    made = replace(
        wanted, looks=design.looks, confidences=design.confidences, declared=utc_now(), finished_before=finished
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(made))
    return made


def read_design(
    file: Path,  # That `declare` wrote
) -> Declared:
    "Read a design. Raises KdfastError if the file has none."
    try:
        found = json.loads(file.read_text('utf-8'))
        design = Declared(**found | {name: tuple(found.get(name, ())) for name in ITEMS})
        check_values(found)
        if 'confidences' not in found:  # written before they were recorded
            design = replace(design, confidences=by_union_bound(design.looks, design.comparisons))
        Design(design.looks, design.comparisons, design.confidences)
        return design
    except (OSError, ValueError, TypeError, AttributeError, KdfastError) as e:
        raise KdfastError(
            f'{file} is not the design of a study: {e}. Move it away, and the study can be declared'
        ) from e


def check_values(
    found: dict,  # Content of a file
):
    "Raise ValueError for values that `declare` never writes."
    wrong = [name for name, kind in KINDS.items() if name in found and not isinstance(found[name], kind)]
    lists = {name: found[name] for name in ITEMS if name in found}
    wrong += [name for name, of in lists.items() if type(of) is not list or not all(type(v) is ITEMS[name] for v in of)]
    wrong += [name for name in ('recipes', 'looks', 'confidences') if lists.get(name) == []]
    if not wrong and not isfinite(found['margin']):
        wrong = ['margin']
    if not wrong and found.get('metric', Declared.metric) not in METRICS:
        wrong = ['metric']
    if wrong:
        raise ValueError(f'{wrong[0]} is {found[wrong[0]]!r}')


def find_designs(
    runs_dir: Path,  # Where runs are kept
    data: str,  # Name of the data set
) -> list[Declared]:
    "Return the designs of the studies on a data set, the oldest first."
    files = (Path(runs_dir) / data / FOLDER).glob('*.json')
    return sorted((read_design(file) for file in files), key=lambda found: found.declared)


def parse_looks(
    text: str,  # 3,5,8,12,20
) -> tuple[int, ...]:
    "Parse numbers of seeds, separated by commas. Raises KdfastError for anything else."
    try:
        return tuple(int(word) for word in text.split(','))
    except ValueError:
        raise KdfastError(f'--looks {text}: expected numbers of seeds, such as 3,5,8,12,20') from None
