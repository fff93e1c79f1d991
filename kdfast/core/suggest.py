"Suggest names in error messages."

import difflib


def near_names(
    name: str,  # Not among `names`
    names: list[str],  # Those that exist
) -> str:  # "did you mean …?", or "there are …"
    "Suggest the names that are most similar to a name that does not exist."
    found = difflib.get_close_matches(name, names, n=3)
    return f'did you mean {", ".join(found)}?' if found else f'there are {short_list(names)}'


def short_list(
    names: list[str],  # Any number
) -> str:
    "Join the first three names, followed by the number of the others; \"nothing\" if there are none."
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '') or 'nothing'
