"The recipes of a study with a design against its baseline: the verdict of the look that decided. Imports no torch."

from itertools import count, takewhile

from kdfast.analysis.aggregate import differing_settings
from kdfast.analysis.differences import accuracy_step
from kdfast.runs.run_dir import RunDir
from kdfast.stats.sequential import Design, decide


def design_differences(
    folders: list[RunDir],  # Runs on one data set
    against: str,  # The baseline, as its directory is called
    recipes: tuple[str, ...],  # Compared with it, likewise
    design: Design,
    margin: float,  # Smallest difference that matters, as a fraction
) -> list[dict]:
    "A row a recipe, as `kdfast.analysis.differences.differences_from` has them, with `look`, `confidence`, `next_look`."
    return [
        dict(recipe=name, against=against)
        | design_difference(by_seed(folders, name), by_seed(folders, against), design, margin)
        for name in recipes
    ]


def by_seed(folders, name):
    "Finished runs of a recipe that classify"
    return {
        folder.seed: folder
        for folder in folders
        if folder.recipe == name and folder.finished and folder.result['valid_accuracy'] is not None
    }


def design_difference(
    runs: dict[int, RunDir],  # Finished runs by seed
    others: dict[int, RunDir],  # Those of the baseline
    design: Design,
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    "The paired difference at the look that decides, or at the last that was reached; seeds count from 0, none left out."
    seeds = list(takewhile(lambda seed: seed in runs and seed in others, count()))
    values = [runs[seed].result['valid_accuracy'] - others[seed].result['valid_accuracy'] for seed in seeds]
    found = decide(design, values, accuracy_step(runs[0]) if seeds else 0.0, margin)
    row = dict(seeds=seeds, margin=margin, next_look=design.following(len(seeds)))
    if found is None:
        return row | dict(n=len(seeds), verdict=None)
    verdict = found.verdict(margin)
    used = [folders[seed] for folders in (runs, others) for seed in range(found.n)]
    return row | dict(
        seeds=seeds[: found.n],
        of='seeds',
        n=found.n,
        look=found.n,
        confidence=design.confidence(found.n),
        difference=found.mean,
        sd=found.sd,
        low=found.low,
        high=found.high,
        verdict=verdict,
        next_look=row['next_look'] if verdict == 'undecided' else None,
        differ_in=', '.join(differing_settings(used)),
    )
