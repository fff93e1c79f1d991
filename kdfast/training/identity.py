"What a run is of beside its arguments and images: the user's sources, weights, packages, and the structure of its networks."

from importlib.metadata import packages_distributions, version
from pathlib import Path

from kdfast.core.errors import KdfastError, listed
from kdfast.core.installed import is_installed
from kdfast.core.names import LIBRARIES, NETWORKS, PRETRAINED, Name, is_run, names_network, parse
from kdfast.core.projects import project_of_file, project_root, saved_name
from kdfast.core.source import sha256_of
from kdfast.data.dataset import Data
from kdfast.models.build import check_network, project_of, structure_of
from kdfast.models.saved import check_trusted
from kdfast.runs import trust
from kdfast.runs.options import NETWORK_OPTIONS
from kdfast.runs.recipes import Recipe
from kdfast.runs.run_dir import RunDir


def of(
    recipe: Recipe,
    arguments: dict,  # Of the recipe
    data: Data,  # What it is for
) -> dict:
    """`sources` and weights by SHA-256, versions of `packages`, and digests of the `structures` of networks; what there is none of is left out.

    Raises KdfastError, before anything is written, where a network cannot be built, trained on the data, or kept.
    """
    for name in (value for key, value in arguments.items() if key in NETWORK_OPTIONS and is_run(value)):
        check_trusted(Path(name) / 'weights.safetensors')
    named = foreign(arguments)
    structures = {name: check_network(name, data) for name in named}
    projects = {parse(name).where: project_of(parse(name)) for name in named}
    sources = {where: project.hashes for where, project in projects.items() if project}
    weights = {file: sha256_of(file) for file in {parse(name).weights for name in named} - {'', PRETRAINED}}
    found = dict(
        sources=sources | weights,
        recipe_sources=beside(recipe),
        structures=structures,
        packages=packages(where for where, project in projects.items() if not project),
    )
    return {name: value for name, value in found.items() if value}


def beside(recipe):
    "SHA-256 of the modules of the user's that the recipe imports, by name; its own file is on record whole"
    if is_installed(recipe.file):
        return {}
    project = project_of_file(recipe.file)
    return {name: sha256 for name, sha256 in project.hashes.items() if name != saved_name(str(recipe.file))}


def foreign(arguments):
    "The names of networks among the arguments that are not kdfast's own: they may not be what they seem"
    return [
        value
        for name, value in arguments.items()
        if value not in NETWORKS and (name in NETWORK_OPTIONS and not is_run(value) or is_plainly_network(value))
    ]


def is_plainly_network(value):
    "Whether it can be nothing else, whatever the option is called"
    return isinstance(value, str) and names_network(value) and (parse(value).where in LIBRARIES or parse(value).is_file)


def packages(tops):
    "The versions of installed packages that build networks; torchvision's is with every run's"
    tops = {top.partition('.')[0] for top in tops} - {'', 'torchvision', 'kdfast'}
    distributions = packages_distributions() if tops else {}
    return {top: version(distributions[top][0]) for top in sorted(tops) if top in distributions}


def check(
    folder: RunDir,  # Of a finished run
    recipe: Recipe,
    arguments: dict,  # Of the recipe
    data: Data,  # What it is for
    versions: dict,  # Of the packages that every run depends on, today
):
    "Raise KdfastError where the run was made of other sources, weights or networks than the same names lead to today."
    was = folder.run
    files = [
        (project_root(where) / name, sha256)
        for where, those in was.get('sources', {}).items()
        if isinstance(those, dict)
        for name, sha256 in those.items()
    ]
    files += [(Path(where), sha256) for where, sha256 in was.get('sources', {}).items() if isinstance(sha256, str)]
    files += [(project_root(recipe.file) / name, sha256) for name, sha256 in was.get('recipe_sources', {}).items()]
    changed = [str(file) for file, sha256 in files if sha256_of(file) != sha256]
    if changed:
        raise KdfastError(
            f'{folder} was made with sources that have changed since: {listed(changed)}; remove that folder, or use --runs'
        )
    if was.get('versions') == versions and was.get('packages', {}) == packages(was.get('packages', {})):
        other = [name for name, digest in was.get('structures', {}).items() if structure_of(name, data) != digest]
        if other:
            raise KdfastError(
                f'{folder} was made with another network {other[0]} than that name builds today: remove that folder, or use --runs'
            )
    for named in map(parse, foreign(arguments)):
        if sources := was.get('sources', {}).get(named.where):  # as the user has them today, so that they may run
            trust.accept(dict(network=str(Name(saved_name(named.where), named.what, named.arguments)), source=sources))
