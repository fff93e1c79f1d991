"""Where the runs that a run builds on lie, wherever the directory of all runs has been moved. Imports no torch."""

from pathlib import Path


def upstream_entries(
    folder,  # A run's directory
) -> list[dict]:
    "The `recipe` of each, its `path` (from the folder of all runs, where it lies in that) and the `sha256` of its weights."
    found = folder.run.get('stands_on') or []
    return (
        [dict(recipe=name) | entry for name, entry in found.items()] if isinstance(found, dict) else found
    )  # format 1 had one a recipe


def rebased_entries(
    folder,  # The directory of an interrupted run
) -> list[dict]:
    "`entries`, with the paths of today's format."

    def there(entry):
        return next(
            (f for f in possible_places(folder, entry) if (f / 'run.json').exists()), possible_places(folder, entry)[-1]
        )

    return [entry | dict(path=relative_path(folder, there(entry))) for entry in upstream_entries(folder)]


def possible_places(folder, entry):
    "Where it may lie; format 1 had the path from wherever the run was trained"
    path = Path(entry['path'])
    return [runs_root(folder) / path, path, runs_root(folder).joinpath(*path.parts[-3:])]


def relative_path(folder, path):
    "From the folder of all runs, so that both can be moved together; or, outside of it, from the root of the disk"
    there, here = path.resolve(), runs_root(folder).resolve()
    return (there.relative_to(here) if there.is_relative_to(here) else there).as_posix()


def runs_root(folder):
    return folder.path.absolute().parents[2]
