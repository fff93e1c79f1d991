"A budget of time: how many seeds it allows, and training until it ends."

import re
import time
from dataclasses import replace

from kdfast.cli.app import print_note
from kdfast.cli.designs import train_until_decided
from kdfast.cli.planned import PlannedStudy, declared_before
from kdfast.core.errors import KdfastError
from kdfast.core.format import duration

FEWEST = 3  # seeds of a study
PLANNED = 0.9  # of the budget: a forecast may be too low
UNITS = dict(s=1, sec=1, m=60, min=60, h=3600, d=86400)


def parse_budget(
    text: str,  # 45min, 2h, 1h30min
) -> float:  # Seconds
    "Parse a duration. Raises KdfastError for anything else, and for nothing."
    parts = re.findall(r'(\d+(?:\.\d+)?)\s*([a-z]+)', text.strip().lower())
    whole = ''.join(f'{number}{unit}' for number, unit in parts) == re.sub(r'\s', '', text.lower())
    if not parts or not whole or any(unit not in UNITS for _, unit in parts):
        raise KdfastError(f'--budget {text}: expected a time with its unit, such as 45min, 2h or 1h30min')
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not seconds:
        raise KdfastError(f'--budget {text}: expected more than no time, such as 45min')
    return seconds


def looks_within(
    study: PlannedStudy,  # To train
    began: float,  # Value of time.monotonic() when the budget began
    seconds: float,  # The budget
    budget: str,  # As given
) -> tuple[int, ...]:
    "Return looks of which the last is within the budget. Raises KdfastError if not even the first is."
    from kdfast.stats.sequential import LOOKS
    from kdfast.study.forecast import seconds_needed, seeds_within

    costs = study.costs(LOOKS[-1])
    used = time.monotonic() - began
    n = seeds_within(PLANNED * (seconds - used), study.tasks, costs, study.jobs, LOOKS[-1])
    looks = (*(look for look in LOOKS if look < n), max(n, FEWEST))
    first = seconds_needed(study.tasks(looks[0]), costs, study.jobs)
    if n < FEWEST:
        raise KdfastError(
            f'--budget {budget} is enough for {n} seed{"s" * (n != 1)}, and the first look is at {FEWEST} seeds, '
            f'which take about {duration(first)}, or {duration(first / PLANNED)} with a tenth of the budget to spare, '
            f'after {duration(used)} of preparation: expected --budget {int((used + first / PLANNED) / 60) + 1}min or '
            'more, fewer --epochs, or a smaller --size'
        )
    print_note(f'{n} seeds fit into the budget; {looks[0]} seeds take about {duration(first)}')
    return looks


def hopeless_note(
    study: PlannedStudy,  # Not trained yet
    design,  # kdfast.analysis.design.Declared, with its looks
) -> str:
    "Return a note if even the last look is not expected to decide, else an empty text."
    from kdfast.analysis.spread import largest_step, spreads
    from kdfast.report.plan import remedy_text
    from kdfast.runs.find import find_runs
    from kdfast.stats.planning import outlooks, remedies_of

    if study.data.several:
        return ''  # the spread of their F1 is known from finished runs only
    known = spreads(find_runs(study.training.runs, study.data.name), design, study.class_sizes, None)
    spread = min(known, key=lambda found: found.sd)
    setting = design.design, spread.sd, largest_step(study.class_sizes, design.metric), design.margin
    if all(found.look for found in outlooks(*setting)):
        return ''
    n = sum(study.class_sizes)
    error = f' even if only {spread.error:.0%} of them are wrong' if len(known) > 1 else ''
    return (
        f'{design.looks[-1]} seeds and {n:,} validation images will probably not decide a margin of '
        f'{100 * design.margin:g} points{error}: enough would be {remedy_text(remedies_of(*setting, n))}'
    )


def train_within(
    study: PlannedStudy,  # To train
    design,  # kdfast.analysis.design.Declared, without its looks
    began: float,  # Value of time.monotonic() when the budget began
    seconds: float,  # The budget
    budget: str,  # As given
) -> tuple:  # The design with its looks, as declared before if it was; tasks without a result
    "Train until there is an answer, or the time is over and the runs are saved."
    from kdfast.analysis.worth import UNDECIDED, answer_of
    from kdfast.study.schedule import OutOfTime

    declared = declared_before(design, study.training.runs, study.data.name)
    if declared:
        design = replace(design, looks=declared.looks, confidences=declared.confidences)
        study.check_finished(declared.looks[-1])
    else:
        design = replace(design, looks=looks_within(study, began, seconds, budget))
        if note := hopeless_note(study, design):
            print_note(note)
    train = study.trainer(not declared, began + seconds)  # measuring its costs has rehearsed the recipes
    try:
        return design, train_until_decided(
            design, study.training.runs, study.data.name, train, lambda rows: answer_of(rows) != UNDECIDED
        )
    except OutOfTime:
        print_note(f'the budget of {budget} is over; the runs are saved, and the same command continues')
        return design, []
