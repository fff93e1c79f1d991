"""Runs of one recipe as one row: means, spreads, and what they differ in. Imports no torch."""

from collections import defaultdict
from statistics import mean, stdev

from kdfast.analysis.measures import MEASURES
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir

COMPUTED = {  # how a run was: what run.json calls it, and what remarks call it
    'precision': 'precision',
    'device': 'device',
    'threads': 'threads',
    'processes': 'processes',
    'batch_size': 'batch size',
    'data_sha256': 'images',
}


# Many runs


def aggregate(
    folders: list[RunDir],  # Runs of one data set
) -> list[dict]:
    "A row a recipe, in the report's order: for every number its mean, standard deviation, n, and the values by seed."
    by_recipe = defaultdict(list)
    for folder in folders:
        if folder.finished:
            by_recipe[folder.recipe].append(folder.result)
    rows = []
    for recipe in sorted(by_recipe, key=study_order):
        results = by_recipe[recipe]
        row = dict(recipe=recipe, data=results[0]['data'], n=len(results), seeds=[r['seed'] for r in results])
        for name in MEASURES:
            row[name] = mean_and_spread([r.get(name) for r in results])
        rows.append(row | dict(teachers=sorted({r['teacher_sha256'] for r in results if r['teacher_sha256']})))
    return rows


def mean_and_spread(values):
    "Mean, standard deviation (from two values on) and the values; None where a recipe has no such number"
    if any(v is None for v in values):
        return None
    return dict(mean=mean(values), sd=stdev(values) if len(values) > 1 else None, values=values)


def differing_settings(
    folders: list[RunDir],  # Finished runs
) -> dict:  # By what they differ in: value, and the recipes that have it
    "In what runs of one seed were computed otherwise: precision, device, threads, versions of packages …"
    found, differ = defaultdict(lambda: defaultdict(set)), set()
    for seed in {f.seed for f in folders}:
        of_seed = [(f.recipe, computed_on(f)) for f in folders if f.seed == seed]
        for what in {what for _, how in of_seed for what in how}:
            values = {how[what] for _, how in of_seed if what in how}
            if len(values) > 1:
                differ.add(what)
            for recipe, how in of_seed:
                if what in how:
                    found[what][how[what]].add(recipe)
    return {what: dict(found[what]) for what in sorted(differ)}


def computed_on(folder):
    "How a run was computed, as far as that is on record"
    run = folder.run
    known = {says: run.get(name) for name, says in COMPUTED.items()} | run.get('versions', {})
    return {what: str(value)[:40] for what, value in known.items() if value is not None}


def flat_table(
    rows: list[dict],  # From `aggregate`
) -> list[list]:
    "The same as a flat table, header first, for CSV."
    header = ['data', 'recipe', 'n', *(f'{name}{part}' for name in MEASURES for part in ('', '_sd'))]

    def numbers(row):
        return (row[name] and row[name][key] for name in MEASURES for key in ('mean', 'sd'))

    return [header, *([row['data'], row['recipe'], row['n'], *numbers(row)] for row in rows)]
