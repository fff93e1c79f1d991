"The runs that a run was built on, as its run.json names them: found again wherever the folder of all runs has been moved. Imports no torch."
from pathlib import Path

from kdfast.errors import KdfastError
from kdfast.runs import Folder


def entries(
    folder, # A run's directory
) -> list[dict]:
    "The `recipe` of each, its `path` (from the folder of all runs, where it lies in that) and the `sha256` of its weights."
    found = folder.run.get('stands_on') or []
    return [dict(recipe=name) | entry for name,entry in found.items()] if isinstance(found, dict) else found # format 1 had one a recipe


def record(
    folder:Folder, # A run that is being trained
    recipe:str, # Of the other
    other:Folder, # A finished run that it is built on
):
    "Put that on record. Raises KdfastError where the other one had other weights before this one was interrupted."
    entry = dict(recipe=recipe, path=path_of(folder, other.path), sha256=other.files['weights.safetensors'])
    for was in folder.facts['stands_on']:
        if (was['recipe'], was['path']) != (entry['recipe'], entry['path']): continue
        if was['sha256'] == entry['sha256']: return
        raise KdfastError(f'{folder} was interrupted and cannot go on: {recipe} was {was["sha256"][:8]}, is {entry["sha256"][:8]} (SHA-256 of its weights). '
                          f'Its checkpoints are kept: put the old weights back into {other}, or move {folder} away to start over')
    folder.facts['stands_on'].append(entry)
    folder.set('running')


def rebased(
    folder, # The directory of an interrupted run
) -> list[dict]:
    "`entries`, with the paths of today's format."
    def there(entry): return next((f for f in places(folder, entry) if (f/'run.json').exists()), places(folder, entry)[-1])
    return [entry | dict(path=path_of(folder, there(entry))) for entry in entries(folder)]


def teachers(
    folder:Folder, # A run
) -> list[Folder]:
    "The runs that taught it, as far as they are there and have the weights that they had."
    return [found for entry in entries(folder) if entry['recipe'] == 'teacher' and (found := find(folder, entry))]


def find(folder, entry):
    "The run of an entry, where it still has its weights"
    return next((f for f in map(Folder, places(folder, entry)) if f.finished and f.files.get('weights.safetensors') == entry['sha256']), None)


def places(folder, entry):
    "Where it may lie; format 1 had the path from wherever the run was trained"
    path = Path(entry['path'])
    return [root(folder)/path, path, root(folder).joinpath(*path.parts[-3:])]


def path_of(folder, path):
    "From the folder of all runs, so that both can be moved together; or, outside of it, from the root of the disk"
    there,here = path.resolve(),root(folder).resolve()
    return (there.relative_to(here) if there.is_relative_to(here) else there).as_posix()


def root(folder): return folder.path.absolute().parents[2]
