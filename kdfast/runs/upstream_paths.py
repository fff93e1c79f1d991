"Find the upstream runs of a run, also after all runs have been moved. Imports no torch."

from pathlib import Path

from kdfast.runs.run_files import RunFiles


def upstream_entries(
    folder: RunFiles,  # A run
) -> list[dict]:  # recipe, path (relative to the directory of all runs if inside) and sha256 (of the weights)
    "Return the entries of a run's upstream runs, such as its teacher. Format 1 had one entry per recipe."
    found = folder.run.get('stands_on') or []
    return [dict(recipe=name) | entry for name, entry in found.items()] if isinstance(found, dict) else found


def rebased_entries(
    folder: RunFiles,  # An interrupted run
) -> list[dict]:
    "Return `upstream_entries` with paths as the current format has them."
    return [
        entry | dict(path=relative_path(folder, existing_place(folder, entry))) for entry in upstream_entries(folder)
    ]


def existing_place(
    folder: RunFiles,  # A run
    entry: dict,  # Of an upstream run
) -> Path:
    "Return the first place that holds a run; the last place if none does."
    places = possible_places(folder, entry)
    return next((place for place in places if (place / 'run.json').exists()), places[-1])


def possible_places(
    folder: RunFiles,  # A run
    entry: dict,  # Of an upstream run
) -> list[Path]:
    """Return where an upstream run may be.

    In format 1 paths are relative to the directory in which the run was trained.
    """
    path = Path(entry['path'])
    return [runs_root(folder) / path, path, runs_root(folder).joinpath(*path.parts[-3:])]


def relative_path(
    folder: RunFiles,  # A run
    path: Path,  # Of an upstream run
) -> str:
    "Return a path relative to the directory of all runs; absolute if it is outside."
    target, root = path.resolve(), runs_root(folder).resolve()
    return (target.relative_to(root) if target.is_relative_to(root) else target).as_posix()


def runs_root(
    folder: RunFiles,  # A run
) -> Path:
    "Return the directory of all runs."
    return folder.path.absolute().parents[2]
