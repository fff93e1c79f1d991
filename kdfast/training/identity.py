"""Identity of a run: the user's sources, weights, packages, and the structure of networks."""

from importlib.metadata import packages_distributions, version
from pathlib import Path

from kdfast.core.errors import KdfastError, listed
from kdfast.core.installed import is_installed
from kdfast.core.names import LIBRARIES, NETWORKS, PRETRAINED, Name, is_run, names_network, parse
from kdfast.core.projects import project_of_file, project_root, saved_name
from kdfast.core.source import sha256_of
from kdfast.data.class_weights import class_weights
from kdfast.data.dataset import Data
from kdfast.data.unlabeled import load_unlabeled
from kdfast.models.build import check_network, project_of, structure_of
from kdfast.models.saved import check_trusted
from kdfast.models.weights_config import read_weights_config
from kdfast.runs import trust
from kdfast.runs.options import NETWORK_OPTIONS
from kdfast.runs.recipes import Recipe
from kdfast.runs.run_dir import RunDir


def identity_of(
    recipe: Recipe,  # Recipe of the run
    arguments: dict,  # All of its arguments
    data: Data,  # Images of the run
) -> dict:  # Entries of run.json; empty ones are left out
    """Return the identity of a run beside its arguments and images.

    That is SHA-256 of `sources` and weights, versions of `packages`, digests of the `structures` of networks,
    the weights of classes, SHA-256 of images without labels, and what files beside trained weights record.

    Raises KdfastError, before anything is written, if a network cannot be built, trained on the data, or saved.
    """
    for name in (value for key, value in arguments.items() if key in NETWORK_OPTIONS and is_run(value)):
        check_trusted(Path(name) / 'weights.safetensors')
    names = foreign_networks(arguments)
    trained = [name for name in names if name not in used_as_given(arguments)]  # others may be for images of other size
    structures = {name: check_network(name, data) for name in trained}
    projects = {parse(name).where: project_of(parse(name)) for name in names}
    sources = {where: project.hashes for where, project in projects.items() if project}
    weights = {file: sha256_of(file) for file in {parse(name).weights for name in names} - {'', PRETRAINED}}
    found = dict(
        sources=sources | weights,
        recipe_sources=recipe_modules(recipe),
        structures=structures,
        class_weights=weights_of(recipe, arguments, data),
        unlabeled_sha256=unlabeled_sha256(arguments, data),
        weights_config=weights_configs(arguments),
        packages=package_versions(where for where, project in projects.items() if not project),
    )
    return {name: value for name, value in found.items() if value}


def weights_of(
    recipe: Recipe,  # Recipe of the run
    arguments: dict,  # All of its arguments
    data: Data,  # Images of the run
) -> dict[str, float]:
    "Return the class weights that the settings choose; empty if there are none."
    return class_weights(recipe.settings_in(arguments).get('class_weights', 'none'), data)


def unlabeled_sha256(
    arguments: dict,  # Of a recipe
    data: Data,  # Images of the run
) -> str:  # Empty if there are none
    "Return the SHA-256 of the images without labels that a recipe trains on."
    return load_unlabeled(arguments['unlabeled'], data)[1] if arguments.get('unlabeled') else ''


def weights_configs(
    arguments: dict,  # Of a recipe
) -> dict[str, dict]:
    "Return what is recorded beside the weights of networks that are used as they are, by name."
    return {name: read_weights_config(parse(name)) for name in used_as_given(arguments) if not is_run(name)}


def recipe_modules(
    recipe: Recipe,  # Any recipe
) -> dict[str, str]:
    "Return SHA-256 of the user's modules that a recipe imports, by name; without the recipe itself."
    if is_installed(recipe.file):
        return {}
    project = project_of_file(recipe.file)
    return {name: sha256 for name, sha256 in project.hashes.items() if name != saved_name(str(recipe.file))}


def foreign_networks(
    arguments: dict,  # Of a recipe
) -> list[str]:
    "Return the names of networks among the arguments that are not kdfast's own."
    return [
        value
        for name, value in arguments.items()
        if value not in NETWORKS and (name in NETWORK_OPTIONS and not is_run(value) or is_plainly_network(value))
    ]


def used_as_given(
    arguments: dict,  # Of a recipe
) -> set[str]:
    "Return the names of trained networks among the arguments that are not trained further."
    epochs_of = dict(network='epochs', teacher='teacher_epochs')
    names = {arguments[name] for name, epochs in epochs_of.items() if name in arguments and arguments.get(epochs) == 0}
    frozen = arguments.get('teacher', '') if 'unlabeled' in arguments else ''
    return names | ({frozen} if '@' in frozen else set())


def is_plainly_network(
    value,  # Argument of a recipe
) -> bool:
    "Return whether a value can only be the name of a network, whatever the option is called."
    return isinstance(value, str) and names_network(value) and (parse(value).where in LIBRARIES or parse(value).is_file)


def package_versions(
    modules,  # Names of modules that build networks
) -> dict[str, str]:
    "Return the versions of the packages of these modules; torchvision's is saved for every run."
    tops = {module.partition('.')[0] for module in modules} - {'', 'torchvision', 'kdfast'}
    distributions = packages_distributions() if tops else {}
    return {top: version(distributions[top][0]) for top in sorted(tops) if top in distributions}


def check(
    folder: RunDir,  # Of a finished run
    recipe: Recipe,  # Requested recipe
    arguments: dict,  # Requested arguments, all of them
    data: Data,  # Requested images
    versions: dict,  # Current versions of the packages that every run depends on
):
    "Raise KdfastError if sources, weights or networks have changed since the run was trained."
    config = folder.run
    changed = [str(file) for file, sha256 in source_files(config, recipe) if sha256_of(file) != sha256]
    if changed:
        raise KdfastError(
            f'{folder} was trained with sources that have changed since: {listed(changed)}. '
            'Delete the run directory, or use --runs'
        )
    check_inputs(folder, recipe, arguments, data)
    packages = config.get('packages', {})
    if config.get('versions') == versions and packages == package_versions(packages):
        other = [name for name, digest in config.get('structures', {}).items() if structure_of(name, data) != digest]
        if other:
            raise KdfastError(
                f'{folder} was trained with another network than {other[0]} builds now: '
                'delete the run directory, or use --runs'
            )
    for named in map(parse, foreign_networks(arguments)):
        if sources := config.get('sources', {}).get(named.where):  # unchanged since, so that they may be executed
            trust.accept(dict(network=str(Name(saved_name(named.where), named.what, named.arguments)), source=sources))


def check_inputs(
    folder: RunDir,  # Of a finished run
    recipe: Recipe,  # Requested recipe
    arguments: dict,  # Requested arguments, all of them
    data: Data,  # Requested images
):
    "Raise KdfastError if class weights, images without labels or preparations have changed."
    config, remedy = folder.run, 'delete the run directory, or use --runs'
    if config.get('class_weights', {}) != weights_of(recipe, arguments, data):
        raise KdfastError(
            f'{folder} was trained with other class weights than {arguments.get("class_weights")} has now: {remedy}'
        )
    if config.get('unlabeled_sha256', '') != unlabeled_sha256(arguments, data):
        raise KdfastError(
            f'{folder} was trained with other images without labels than {arguments["unlabeled"]} has now: {remedy}'
        )
    for name, now in weights_configs(arguments).items():
        before = config.get('weights_config', {}).get(name, {})
        if before != now:
            raise KdfastError(
                f'{folder} used {name} as recorded then beside its weights ({before or "nothing"}), which is now '
                f'{now or "nothing"}: {remedy}'
            )


def source_files(
    config: dict,  # Content of run.json
    recipe: Recipe,  # Requested recipe
) -> list[tuple[Path, str]]:
    "Return the files of the user, with SHA-256, that a run was trained with."
    files = []
    for where, hashes in config.get('sources', {}).items():
        if isinstance(hashes, dict):
            files += [(project_root(where) / name, sha256) for name, sha256 in hashes.items()]
    files += [(Path(where), sha256) for where, sha256 in config.get('sources', {}).items() if isinstance(sha256, str)]
    files += [(project_root(recipe.file) / name, sha256) for name, sha256 in config.get('recipe_sources', {}).items()]
    return files
