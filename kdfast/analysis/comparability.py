"""Find what runs that are compared differ in, besides what their names say. Imports no torch."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from kdfast.core.errors import KdfastError
from kdfast.runs.lookup import UPSTREAM_RECIPES
from kdfast.runs.recipes import find_recipe, recipe_names
from kdfast.runs.resume_check import code_text, default_changes
from kdfast.runs.run_dir import RunDir

SETTINGS = {  # keys of run.json that may affect results, with their names in remarks
    'precision': 'precision',
    'device': 'device',
    'threads': 'threads',
    'processes': 'processes',
    'batch_size': 'batch size',
    'class_weights': 'class weights',
    'unlabeled_sha256': 'images without labels',
}
ARGUMENTS = 'epochs', 'student', 'optimizer', 'lr', 'wd'  # that recipes have in common
TEACHER = 'teacher'  # each seed has its own
OF_A_SEED = {TEACHER, 'threads'}  # may differ from seed to seed: threads affect the last bits only, as chance does
MAX_LENGTH = 40  # characters of a value in a remark


def differing_settings(
    folders: Sequence[RunDir],  # Finished runs
) -> dict[str, dict[str, set]]:  # For each setting that differs: the recipes by value
    """Find the settings in which runs of the same seed differ: precision, teacher, versions of packages, …

    Arguments that the names of the runs or today's defaults tell are none, nor is the code of different recipes.
    """
    recipes = defaultdict(lambda: defaultdict(set))
    differing = set()
    for of_seed in grouped(folders, lambda folder: folder.seed):
        values = defaultdict(set)
        for folder in of_seed:
            arguments = {name: value for name, value in arguments_of(folder).items() if name in ARGUMENTS}
            compared = {} if folder.run.get('recipe') in UPSTREAM_RECIPES else arguments  # the epochs are their own
            for setting, value in (settings_of(folder) | teacher_of(folder) | compared).items():
                values[setting].add(value)
                recipes[setting][value].add(folder.recipe)
        differing |= {name for name, found in values.items() if len(found) > 1 and name not in ARGUMENTS}
        differing |= {name for name in ARGUMENTS if len(values[name]) > 1 and is_untold(name, of_seed)}
    return {setting: dict(recipes[setting]) for setting in sorted(differing)}


def is_untold(
    name,  # Of an argument that differs
    folders,  # Finished runs of one seed
):
    "Return whether it differs among runs whose names do not have it, or is no longer the default."
    recorded = {}
    for folder in folders:
        value, recipe = arguments_of(folder).get(name), folder.run.get('recipe')
        if value is not None and recipe not in UPSTREAM_RECIPES and f',{name}=' not in folder.recipe:
            recorded[folder.path] = value, defaults(recipe).get(name)
    if any(now not in (None, value) for value, now in recorded.values()):
        return True  # the reader of a name takes the default of today for granted
    return len({value for value, _ in recorded.values()}) > 1 and any(now is None for _, now in recorded.values())


def old_defaults(
    folders: Sequence[RunDir],  # Finished runs
) -> dict[str, dict[str, list[int]]]:  # For each recipe: the seeds by argument, such as epochs=16 (now 10)
    "Return the arguments that names leave out because they were defaults once, and are not today."
    found: dict[str, dict[str, list[int]]] = {}
    for folder in folders:
        now = defaults(folder.run.get('recipe'))
        for name, value in arguments_of(folder).items():
            if now.get(name, value) != value and f',{name}=' not in folder.recipe:
                changed = f'{name}={value} (now {now[name]})'
                found.setdefault(folder.recipe, {}).setdefault(changed, []).append(folder.seed)
    return found


def differing_seeds(
    folders: Sequence[RunDir],  # Finished runs
) -> dict[str, list[str]]:  # By recipe
    "Return the settings and arguments in which the seeds of a recipe differ."
    found = {}
    for of_recipe in grouped(folders, lambda folder: folder.recipe):
        values = defaultdict(set)
        for folder in of_recipe:
            for setting, value in (settings_of(folder) | arguments_of(folder)).items():
                values[setting].add(value)
        differing = sorted(name for name, each in values.items() if len(each) > 1 and name not in OF_A_SEED)
        found |= {of_recipe[0].recipe: differing} if differing else {}
    return found


def differences_of(
    folders: Sequence[RunDir],  # Finished runs of the rows of a difference
) -> list[str]:
    "Return what they differ in, from row to row and from seed to seed."
    return sorted({*differing_settings(folders)}.union(*differing_seeds(folders).values()))


def check_same_images(
    folders: Sequence[RunDir],  # Finished runs
):
    "Raise KdfastError for runs on different images, as their numbers cannot be compared."
    first: dict = {}
    for folder in folders:
        own = folder.run.get('data_sha256')
        for key, value in ((None, folder.run.get('drawn_from') or own), (folder.seed, own)):
            other, known = first.setdefault(key, (folder, value)) if value else (folder, value)
            if known != value:
                raise KdfastError(
                    f'{other} and {folder} were trained on different images: their numbers cannot be compared, so '
                    'keep them in different directories (--runs)'
                )


def settings_of(
    folder: RunDir,  # A finished run
) -> dict[str, str]:
    "Return the recorded settings of a run, its code and versions, by their names in remarks."
    run = folder.run
    known = {label: run.get(name) for name, label in SETTINGS.items()}
    known |= run.get('versions', {}) | run.get('packages', {}) | run.get('sources', {})
    code = {}
    if folder.has('recipe.py'):
        source, recipe = folder.parsed('recipe.py', bytes.decode), run.get('recipe')
        version = hashlib.sha256(f'{code_text(source)}{run.get("recipe_sources")}'.encode()).hexdigest()[:8]
        today = find_recipe(recipe).source if recipe in recipe_names() else source
        code = {f'{recipe}.py': version + default_changes(source, today)}
    return {setting: short_text(value) for setting, value in known.items() if value is not None} | code


def teacher_of(
    folder,  # A finished run
):
    "Return the teacher of a run; nothing without one."
    sha256 = folder.result['teacher_sha256']
    return {TEACHER: sha256} if sha256 else {}


def arguments_of(
    folder,  # A finished run
):
    "Return the recorded arguments of a run that are known, as text; the precision is among its settings."
    recorded = folder.run.get('arguments', {})
    return {name: str(value) for name, value in recorded.items() if value is not None and name != 'precision'}


def short_text(
    value,  # Of run.json
):
    "Return a value as text, long ones as a hash."
    text = str(value)
    return text if len(text) <= MAX_LENGTH else hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def defaults(
    recipe,  # Its name
):
    "Return today's defaults of a recipe of kdfast as text; nothing for the user's own."
    options = find_recipe(recipe).options if recipe in recipe_names() else []
    return {option.name: str(option.default) for option in options}


def grouped(
    folders,  # Runs
    key,  # From a run to its group
):
    "Return the runs of each group."
    groups = defaultdict(list)
    for folder in folders:
        groups[key(folder)].append(folder)
    return list(groups.values())
