"Parse run.json and result.json. Imports no torch."

import json

STATES = 'running', 'finished', 'interrupted', 'failed', 'diverged'
ENTRIES = dict(  # of run.json, whose types commands rely on
    arguments=dict,
    files=dict,
    images=dict,
    packages=dict,
    versions=dict,
    sources=dict,
    stands_on=(list, dict),
    changed=list,
    recipe=str,
    reason=str,
    format=int,
    threads=int,
)
RESULTS = dict(recipe=str, data=str, seed=int, teacher_sha256=(str, type(None)))  # of every result.json


def parse_object(
    content: bytes,  # JSON
) -> dict:
    "Parse a JSON object. Raises ValueError for any other content."
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError('it holds no object')
    return found


def parse_record(
    content: bytes,  # Of run.json
) -> dict:
    "Parse run.json. Raises ValueError for an unknown state, and for entries of other types."
    found = parse_object(content)
    if (state := found.get('status')) not in STATES:
        raise ValueError(f'unknown state {state}' if state else 'unknown state')
    check_types(found, {name: kind for name, kind in ENTRIES.items() if found.get(name) is not None})
    return found


def parse_result(
    content: bytes,  # Of result.json
) -> dict:
    "Parse result.json. Raises ValueError if it lacks what every run has."
    found = parse_object(content)
    check_types(found, RESULTS)
    return found


def check_types(
    found: dict,  # Content of a file
    kinds: dict,  # Types of the entries that it must have
):
    "Raise ValueError for an entry that is missing, or of another type."
    for name, kind in kinds.items():
        if name not in found or not isinstance(found[name], kind):
            raise ValueError(f'{name} is {"wrong" if name in found else "missing"}')
