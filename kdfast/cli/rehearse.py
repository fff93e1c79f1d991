"Hidden commands that a study starts in other processes: rehearse and identify."

import json
from typing import Annotated

import typer

from kdfast.cli.app import app
from kdfast.cli.options import DEFAULT_RUNS, DataOptions, ResplitOption, RunsOption, TrustOption, expand_groups
from kdfast.cli.run import load_data, quiet_imports, trust_runs
from kdfast.runs.recipes import Recipe, find_recipe

TasksArgument = Annotated[str, typer.Argument(help='JSON: recipe, arguments and seeds of each kind of run.')]


def rehearse(
    tasks: TasksArgument,
    jobs: Annotated[int, typer.Option(help='Number of parallel runs of the study.')] = 1,
    trust_code: TrustOption = False,
    resplit: ResplitOption = False,
    runs: RunsOption = DEFAULT_RUNS,
    *,
    images: DataOptions,
):
    "Rehearse the recipes of a study; `study` starts it."
    with quiet_imports():
        from kdfast.training.rehearsal import rehearse_all

    data = load_data(images, runs)
    resolved = resolved_tasks(tasks, trust_code)
    rehearse_all(resolved, lambda seed: load_data(images, runs, seed, True) if resplit else data, runs, jobs)


def identify(
    tasks: TasksArgument,
    trust_code: TrustOption = False,
    resplit: ResplitOption = False,
    runs: RunsOption = DEFAULT_RUNS,
    *,
    images: DataOptions,
):
    "Check that finished runs are those of a study; `study` starts it."
    from kdfast.runs.run_dir import locate_run

    with quiet_imports():
        from kdfast.training.lifecycle import check_identity

    wanted = resolved_tasks(tasks, trust_code)
    data = load_data(images, runs)
    for seed in sorted({seed for _, _, seeds in wanted for seed in seeds}):
        of_seed = load_data(images, runs, seed, True) if resplit else data
        for recipe, arguments, seeds in wanted:
            folder = locate_run(runs, of_seed.name, recipe.folder_name(arguments), seed)
            if seed in seeds:
                check_identity(folder, recipe, of_seed, arguments)


def resolved_tasks(
    tasks: str,  # JSON, from `kdfast.study.schedule.by_recipe`
    trust_code: bool,  # Whether code that came with the named runs may be executed
) -> list[tuple[Recipe, dict, list[int]]]:
    "Return the recipe, all arguments and the seeds of each kind of run."
    wanted = [(find_recipe(name), given, seeds) for name, given, seeds in json.loads(tasks)]
    if trust_code:
        trust_runs([value for _, given, _ in wanted for value in given.values()])
    return [(recipe, recipe.resolve(given), seeds) for recipe, given, seeds in wanted]


app.command(hidden=True)(expand_groups(rehearse))
app.command(hidden=True)(expand_groups(identify))
