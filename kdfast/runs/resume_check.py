"Decide whether an unfinished run can be resumed with the same result. Imports no torch."

import ast
import re
from functools import cache

from kdfast.core.errors import KdfastError
from kdfast.runs.run_files import RunFiles
from kdfast.runs.upstream_paths import rebased_entries

CIRCUMSTANCES = {  # parts of run.json that do not decide what is trained on which data
    'recipe',
    'recipe_sources',
    'sources',
    'packages',
    'versions',
    'device',
    'machine',
    'threads',
    'processes',
}
RESUMABLE = 'running', 'interrupted', 'failed', 'diverged'  # states whose checkpoints can be used


def resume_record(
    folder: RunFiles,  # Of an unfinished run
    status: str | None,  # Its state
    config: dict,  # What run.json would hold if the run started now
    source: str,  # Of the recipe
) -> dict:  # What run.json keeps of the earlier start; empty if there is nothing to resume
    """Check that an unfinished run is resumed as it was started.

    Raises KdfastError if something has changed, because the result would differ. If the user has removed recipe.py,
    changes of software and hardware are accepted and recorded.
    """
    if not has_checkpoints(folder) or folder.run['status'] not in RESUMABLE:
        return {}
    recipe_file = folder / 'recipe.py'
    changed = changes(folder.run, config)
    before = recipe_file.read_text('utf-8') if recipe_file.exists() else source
    if not same_code(before, source):
        changed['recipe'] = f'its recipe is another version{default_changes(before, source)}'
    may_pass = changed.keys() <= CIRCUMSTANCES
    if changed and (recipe_file.exists() or not may_pass):
        nevertheless = f'; remove {recipe_file} to resume nevertheless, which is recorded' if may_pass else ''
        raise KdfastError(
            f'{folder} was {status} and cannot go on: {"; ".join(changed.values())}. Its checkpoints are kept: '
            f'change that back to resume{nevertheless}; move the folder away to start over'
        )
    if not recipe_file.exists():
        changed.setdefault('recipe', 'its recipe may be another version')
    return dict(changed=[*folder.run.get('changed', []), *changed.values()], stands_on=rebased_entries(folder))


def same_code(
    one: str,  # Source of a recipe
    other: str,  # Source of a recipe
) -> bool:
    "Return whether two sources differ in comments and layout at most."
    return code_text(one) == code_text(other)


@cache
def code_text(
    source: str,  # Of a recipe
) -> str:
    "Return a text that is the same for sources that differ in comments and layout at most."
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return source


def default_changes(
    before: str,  # Source of a recipe
    now: str,  # Source of its version of today
) -> str:
    "Return which defaults have changed, as in: (epochs was 16, is 10); nothing if none has."
    old, new = defaults_of(before), defaults_of(now)
    found = [f'{name} was {old[name]}, is {new[name]}' for name in old if old[name] != new.get(name, old[name])]
    return f' ({"; ".join(found)})' if found else ''


@cache
def defaults_of(
    source: str,  # Of a recipe
) -> dict:
    "Return the defaults of the parameters of main; nothing for a source that is no recipe."
    try:
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        found = next(node for node in reversed(functions) if node.name == 'main').args
        positional = [*found.posonlyargs, *found.args]
        named = [*zip(positional[len(positional) - len(found.defaults) :], found.defaults)]
        named += zip(found.kwonlyargs, found.kw_defaults)
        return {parameter.arg: ast.literal_eval(default) for parameter, default in named}
    except (SyntaxError, StopIteration, ValueError, TypeError):
        return {}


def has_checkpoints(
    folder: RunFiles,  # Any run directory
) -> bool:
    "Return whether a run directory holds checkpoints."
    return any((folder / 'resume').glob('[!.]*'))


def changes(
    before: dict,  # The content of run.json
    config: dict,  # What run.json would hold now
) -> dict[str, str]:  # "device was …, is …", by key
    "Describe what has changed since a run was started."
    return {
        name: '{} was {}, is {}'.format(name, *differing_values(before.get(name), value))
        for name, value in config.items()
        if before.get(name) != value
    }


def differing_values(
    before: object,  # A value of run.json
    now: object,  # The value that replaces it
) -> tuple:  # Both, shortened
    "Shorten two values: dictionaries to the entries that differ, a SHA-256 to its first 8 digits."
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        pairs = {key: differing_values(before.get(key), now.get(key)) for key in keys}
        return tuple({key: pair[i] for key, pair in pairs.items()} for i in (0, 1))
    return short_hash(before), short_hash(now)


def short_hash(
    value: object,  # Any value
) -> object:
    "Return the first 8 digits of a SHA-256, and any other value unchanged."
    return value[:8] if isinstance(value, str) and re.fullmatch('[0-9a-f]{64}', value) else value
