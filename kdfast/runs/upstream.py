"Record and find the upstream runs of a run, such as its teacher. Imports no torch."

from kdfast.core.errors import KdfastError
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream_paths import possible_places, relative_path, upstream_entries


def record_upstream(
    folder: RunDir,  # A run that is being trained
    recipe: str,  # Of the upstream run
    other: RunDir,  # The upstream run, finished
):
    """Record an upstream run in run.json.

    Raises KdfastError if its weights have changed since this run was interrupted.
    """
    entry = dict(recipe=recipe, path=relative_path(folder, other.path), sha256=other.files['weights.safetensors'])
    for known in folder.record['stands_on']:
        if (known['recipe'], known['path']) != (entry['recipe'], entry['path']):
            continue
        if known['sha256'] == entry['sha256']:
            return
        raise KdfastError(
            f'{folder} was interrupted and cannot go on: {recipe} was {known["sha256"][:8]}, is {entry["sha256"][:8]} '
            f'(SHA-256 of its weights). Its checkpoints are kept: put the old weights back into {other}, or move '
            f'{folder} away to start over'
        )
    folder.record['stands_on'].append(entry)
    folder.set_status('running')


def teachers_of(
    folder: RunDir,  # A run
) -> list[RunDir]:
    "Return the teachers of a run that still exist with the same weights."
    entries = [entry for entry in upstream_entries(folder) if entry['recipe'] == 'teacher']
    return [found for entry in entries if (found := find_upstream(folder, entry))]


def find_upstream(
    folder: RunDir,  # A run
    entry: dict,  # Of an upstream run
) -> RunDir | None:
    "Return an upstream run; None if it is not there with the same weights."
    for other in map(RunDir, possible_places(folder, entry)):
        if other.finished and other.files.get('weights.safetensors') == entry['sha256']:
            return other
    return None
