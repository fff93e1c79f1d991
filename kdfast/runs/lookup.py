"Find runs by the recipe and the arguments that they recorded. Imports no torch."

from collections.abc import Sequence

from kdfast.core.errors import KdfastError, listed
from kdfast.runs.find import arguments_today, recipe_of_run, recipe_today
from kdfast.runs.options import OF_ONE_RUN, SETTINGS
from kdfast.runs.recipes import STUDY, Recipe, find_recipe
from kdfast.runs.run_dir import RunDir

# Arguments that the recipes of one study have in common
SHARED = {'epochs', 'teacher', 'student', 'hint', *(s.name for s in SETTINGS if s.name not in OF_ONE_RUN)}
UPSTREAM_RECIPES = 'teacher', 'hint', 'pretrain'  # their number of epochs is their own; others train them if needed
FOLLOWING = dict(pretrain='finetune')  # recipes that continue another one


def runs_by_seed(
    folders: Sequence[RunDir],  # Finished runs on one data set
    recipe: Recipe,  # Of the runs
    arguments: dict,  # Not its defaults; those that the recipe does not have are ignored
) -> dict[int, RunDir]:  # By seed
    """Return the runs of a recipe with exactly these arguments, whatever their directory is called.

    Of several directories, the one that kdfast would write to; never the seeds of one and of another. Raises
    KdfastError if that one is not among them.
    """
    by_name: dict[str, dict[int, RunDir]] = {}
    for folder in with_arguments(folders, recipe, arguments):
        by_name.setdefault(folder.recipe, {})[folder.seed] = folder
    own_name = recipe.folder_name(all_arguments(recipe, arguments))
    if len(by_name) > 1 and own_name not in by_name:
        found = [str(next(iter(runs.values())).path.parent) for runs in by_name.values()]
        raise KdfastError(
            f'{listed(found)} hold runs of {own_name}: expected one directory; rename the one that counts to {own_name}'
        )
    return by_name.get(own_name) or next(iter(by_name.values()), {})


def with_arguments(
    folders: Sequence[RunDir],  # Finished runs
    recipe: Recipe,  # Of the runs
    arguments: dict,  # Not its defaults; those that the recipe does not have are ignored
) -> list[RunDir]:
    "Return all runs of a recipe with exactly these arguments, copies included."
    wanted = all_arguments(recipe, arguments)
    of_recipe = [folder for folder in folders if folder.run.get('recipe') == recipe.name]
    return [f for f in of_recipe if all_arguments(recipe, {}) | f.run.get('arguments', {}) == wanted]


def all_arguments(
    recipe: Recipe,  # Any recipe
    arguments: dict,  # Not its defaults
) -> dict:
    "Return arguments and settings of a recipe, completed by their defaults."
    return {option.name: arguments.get(option.name, option.default) for option in (*recipe.options, *recipe.settings)}


def settings(
    folders: Sequence[RunDir],  # Finished runs
    but: tuple = (),  # Arguments that are ignored
) -> list[dict]:
    "Return the different sets of arguments that are not defaults, the most frequent first."
    found = [{name: value for name, value in arguments_today(f).items() if name not in but} for f in folders]
    different = [arguments for i, arguments in enumerate(found) if arguments not in found[:i]]
    return sorted(different, key=lambda arguments: -found.count(arguments))


def arguments_text(
    arguments: dict,  # By name
) -> str:
    "Format arguments, for example: epochs=6, optimizer=muon."
    return ', '.join(f'{name}={value}' for name, value in arguments.items())


def next_recipe(
    folder: RunDir,  # A finished run
    folders: Sequence[RunDir],  # Others on the same data
) -> tuple[str, dict] | None:  # A recipe and its arguments; None if all have been run
    """Return the first recipe of the study that has not been run with the settings of this run.

    After pretraining that is fine-tuning. Recipes that others depend on are left out, as those train them.
    """
    finished = [f for f in folders if f.finished and f.seed == folder.seed]
    ran = folder.run['recipe']
    shared = {name: value for name, value in arguments_today(folder).items() if name in SHARED | {'unlabeled'}}
    shared = trained_teacher(folder, finished, shared) | shared
    shared = {o.name: o.default for o in recipe_today(folder).options if o.name in SHARED} | shared
    if ran in UPSTREAM_RECIPES:
        shared.pop('epochs', None)
    names = [FOLLOWING[ran]] if ran in FOLLOWING else [name for name in STUDY if name not in UPSTREAM_RECIPES]
    for name in names:
        recipe = find_recipe(name)
        arguments = recipe.changed(shared)  # another recipe may have other defaults, such as a network of the user's
        if name != ran and not with_arguments(finished, recipe, arguments):
            return name, arguments
    return None


def baseline_of(
    folder: RunDir,  # A finished run
    folders: Sequence[RunDir],  # Others on the same data
) -> RunDir | None:
    """Return the finished baseline that differs from a run in the method alone; None without one.

    It has the seed, the images, the number of parameters, the epochs and the settings of the run. Of several, the one
    with the fewest arguments that are not defaults.
    """
    own = all_arguments(recipe_of_run(folder), folder.run.get('arguments', {}))

    def is_alike(other):
        theirs = all_arguments(recipe_of_run(other), other.run.get('arguments', {}))
        return (
            other.run.get('data_sha256') == folder.run.get('data_sha256')
            and other.result['params'] == folder.result['params']
            and all(own[name] == theirs[name] for name in SHARED & own.keys() & theirs.keys())
        )

    baselines = [f for f in folders if f.finished and f.run.get('recipe') == 'baseline' and f.seed == folder.seed]
    found = [other for other in baselines if other.path.resolve() != folder.path.resolve() and is_alike(other)]
    return min(found, key=lambda other: len(arguments_today(other)), default=None)


def trained_teacher(
    folder: RunDir,  # A finished run
    finished: Sequence[RunDir],  # Finished runs of its seed on the same data
    shared: dict,  # Its arguments that other recipes get
) -> dict:  # The argument `teacher`; nothing if recipes find the teacher without it
    "Return the only teacher of the same settings, if its epochs or network are not the defaults."
    own = 'epochs', 'network'
    settings_only = {s.name: shared[s.name] for s in SETTINGS if s.name in shared and s.name not in OF_ONE_RUN}
    teachers = [folder] if folder.run['recipe'] == 'teacher' else finished
    found = {f.path: arguments_today(f) for f in teachers if f.run.get('recipe') == 'teacher'}
    alike = [
        path
        for path, arguments in found.items()
        if {name: value for name, value in arguments.items() if name not in own} == settings_only
    ]
    if len(alike) != 1 or not any(name in found[alike[0]] for name in own):
        return {}
    return dict(teacher=str(alike[0]))
