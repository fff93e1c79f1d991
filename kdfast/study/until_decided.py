"Train seeds until every verdict is decided, look by look. Imports no torch."

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kdfast.analysis.design import Declared
from kdfast.analysis.differences import differences_from, refuse_left_out
from kdfast.analysis.matrix import EXPERIMENTS, answer_question
from kdfast.core.errors import KdfastError, listed
from kdfast.runs.find import find_runs


def run_until_decided(
    declared: Declared,  # The design, which is written already
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
    train: Callable,  # Trains the first seeds of the study, given their number; returns the tasks without a result
    tell: Callable,  # Prints a line
    enough: Callable | None = None,  # Whether rows of differences end the study; default: no recipe is undecided
) -> list:  # Tasks without a result
    """Train up to each look in turn, until the verdicts are enough or a run fails.

    That is when no recipe is undecided or, for the matrix question, when its primary contrast is decided or a premise
    is broken. Raises KdfastError for a recipe whose runs have no accuracy.
    """
    look_at = look_at_question if declared.contrasts else partial(look_at_recipes, enough=enough or all_decided)
    for look in declared.looks:
        failed = train(look)
        if failed:
            return failed
        found, decided = look_at(declared, runs_dir, data)
        tell(f'look at {look} seeds: {found}')
        if decided:
            break
    return []


def look_at_recipes(
    declared: Declared,  # The design of a study
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
    enough: Callable,  # Whether rows of differences end the study
) -> tuple[str, bool]:  # What the look found; whether that decides
    "Look at the verdicts of all recipes. Raises KdfastError for a recipe whose runs have no accuracy."
    found = differences_from(find_runs(runs_dir, data), declared.against, declared.margin, declared.metric)
    rows = [row for row in found if row['recipe'] in declared.recipes]
    refuse_left_out(rows)
    if missing := set(declared.recipes) - {row['recipe'] for row in rows}:
        raise KdfastError(f'no accuracy to compare: {listed(sorted(missing))} trains no classifier; leave it out')
    return ', '.join(f'{row["recipe"]} {row["verdict"]}' for row in rows), enough(rows)


def all_decided(
    rows: Sequence[dict],  # From `differences_from`
) -> bool:
    "Return whether every recipe is better, worse or alike."
    return all(row['verdict'] not in (None, 'undecided') for row in rows)


def look_at_question(
    declared: Declared,  # The design of the matrix question
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
) -> tuple[str, bool]:  # What the look found; whether that decides
    "Look at the contrasts of the matrix question; a broken premise decides, as no seed repairs it."
    found = answer_question(runs_dir, data, (), declared.arguments, declared.margin, declared.metric)
    verdicts = {effect['experiment']: effect['corrected']['verdict'] for effect in found['effects']}
    broken = [p['premise'] for p in found['premises'] if p['state'] == 'broken']
    primary = found['primary']
    names = (primary, *(verdicts.keys() - {primary}))
    text = ', '.join(f'{EXPERIMENTS[name]} {verdicts[name]}' for name in names)
    return text + (f'; a premise is broken: {listed(broken)}' if broken else ''), bool(
        broken or verdicts[primary] not in (None, 'undecided')
    )
