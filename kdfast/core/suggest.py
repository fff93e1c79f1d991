"Suggest names in error messages."

import difflib


def near_names(
    name: str,  # Not among `names`
    names: list[str],  # Those that exist
) -> str:  # "did you mean …?", or "there are …"
    "Suggest the names that are most similar to a name that does not exist."
    found = similar_names(name, names)
    return f'did you mean {", ".join(found)}?' if found else f'there are {short_list(names)}'


def similar_names(
    name: str,  # Not among `names`
    names: list[str],  # Those that exist
) -> list[str]:  # At most three
    "Return the most similar names, whatever their case, else those that begin alike."
    by_lower = {known.lower(): known for known in reversed(names)}
    lower = name.lower()
    found = difflib.get_close_matches(name, names, n=3)
    found = found or [by_lower[known] for known in difflib.get_close_matches(lower, by_lower, n=3)]
    return found or [n for n in names if min(len(n), len(name)) > 1 and _begin_alike(n.lower(), lower)][:3]


def _begin_alike(name, other):
    return name.startswith(other) or other.startswith(name)


def short_list(
    names: list[str],  # Any number
) -> str:
    "Join the first three names, followed by the number of the others; \"nothing\" if there are none."
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '') or 'nothing'
