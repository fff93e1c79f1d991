"The runs that a run was built on, as its run.json names them: found again wherever the folder of all runs has been moved. Imports no torch."

from kdfast.core.errors import KdfastError
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream_paths import possible_places, relative_path, upstream_entries


def record_upstream(
    folder: RunDir,  # A run that is being trained
    recipe: str,  # Of the other
    other: RunDir,  # A finished run that it is built on
):
    "Put that on record. Raises KdfastError where the other one had other weights before this one was interrupted."
    entry = dict(recipe=recipe, path=relative_path(folder, other.path), sha256=other.files['weights.safetensors'])
    for was in folder.facts['stands_on']:
        if (was['recipe'], was['path']) != (entry['recipe'], entry['path']):
            continue
        if was['sha256'] == entry['sha256']:
            return
        raise KdfastError(
            f'{folder} was interrupted and cannot go on: {recipe} was {was["sha256"][:8]}, is {entry["sha256"][:8]} (SHA-256 of its weights). '
            f'Its checkpoints are kept: put the old weights back into {other}, or move {folder} away to start over'
        )
    folder.facts['stands_on'].append(entry)
    folder.set('running')


def teachers_of(
    folder: RunDir,  # A run
) -> list[RunDir]:
    "The runs that taught it, as far as they are there and have the weights that they had."
    return [
        found
        for entry in upstream_entries(folder)
        if entry['recipe'] == 'teacher' and (found := find_upstream(folder, entry))
    ]


def find_upstream(folder, entry):
    "The run of an entry, where it still has its weights"
    return next(
        (
            f
            for f in map(RunDir, possible_places(folder, entry))
            if f.finished and f.files.get('weights.safetensors') == entry['sha256']
        ),
        None,
    )
