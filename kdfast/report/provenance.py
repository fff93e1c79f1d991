"What is needed to train the runs of a page again: commands and records."

import json
from collections.abc import Sequence

from kdfast.runs.command import command_note, reproduce_command
from kdfast.runs.run_dir import RunDir
from kdfast.runs.unfinished import reason_of, state_of

OF_THE_PROCESS = ('pid', 'host')  # of no use to others


def provenance(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[dict]:  # name, command and runs of each recipe
    """Return the command and the records of each recipe.

    The command trains its first seed that has its recipe.py; it is None without one. Of the other seeds, only what
    differs from the first is shown.
    """
    by_recipe: dict[str, list[RunDir]] = {}
    for folder in folders:
        by_recipe.setdefault(folder.recipe, []).append(folder)
    found = []
    for name, runs in by_recipe.items():
        first = record_of(runs[0])
        records = [first, *(differing(record_of(run), first) for run in runs[1:])]
        described = [
            dict(
                seed=run.seed,
                status=state_of(run),
                reason='' if run.finished else reason_of(run) or '',
                recorded=json.dumps(record, indent=1, ensure_ascii=False),
            )
            for run, record in zip(runs, records)
        ]
        with_recipe = next((run for run in runs if not run.problem('run.json') and run.has('recipe.py')), None)
        command = with_recipe and reproduce_command(with_recipe)
        note = with_recipe and command_note(with_recipe)
        found.append(dict(name=name, command=command, note=note, runs=described))
    return found


def record_of(
    folder: RunDir,  # A run
) -> dict:
    "Return the content of run.json that others can use; nothing if it is damaged."
    if folder.problem('run.json'):
        return {}
    return {name: value for name, value in folder.run.items() if name not in OF_THE_PROCESS}


def differing(
    record: dict,  # Of a run
    first: dict,  # Of the first seed
) -> dict:
    "Return the entries that differ from those of the first seed, without the hashes of the files."
    return {name: value for name, value in record.items() if name != 'files' and value != first.get(name)}
