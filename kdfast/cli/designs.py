"The designs of `study` and `matrix` with --until-decided: from options to a declaration, and the study that follows."

from collections.abc import Sequence

from kdfast.cli.app import print_note
from kdfast.cli.options import StudyOptions
from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import Recipe


def baseline_names(
    wanted: Sequence[tuple[Recipe, dict]],  # Recipes with their arguments
) -> list[str]:
    "Return the names of the runs of the baseline."
    return [recipe.folder_name(recipe.resolve(own)) for recipe, own in wanted if recipe.name == 'baseline']


def design_of(
    wanted: Sequence[tuple[Recipe, dict]],  # Recipes with their arguments
    looks: str | None,  # 3,5,8,…
    max_seeds: int | None,  # Seeds at the last look
    margin: float,  # As a fraction
    training: StudyOptions,  # As given
):  # kdfast.analysis.design.Declared
    """Return the design that the options describe.

    Raises KdfastError without a baseline and something to compare with it.
    """
    from kdfast.analysis.design import Declared

    names = {recipe.folder_name(recipe.resolve(given)): recipe.name for recipe, given in wanted}
    baselines = [name for name, recipe in names.items() if recipe == 'baseline']
    others = tuple(name for name in names if name not in baselines)
    if len(baselines) != 1 or not others:
        raise KdfastError('recipes are compared with the baseline, look by look: name baseline and at least one other')
    if 'hint' in names.values():
        raise KdfastError('accuracies are compared, and hint trains no classifier: leave it out')
    declared = Declared(baselines[0], others, chosen_looks(looks, max_seeds, training), margin)
    declared.design  # raises KdfastError for looks that are none
    return declared


def question_design_of(
    given: dict,  # Arguments of every run of the matrix question
    looks: str | None,  # 3,5,8,…
    max_seeds: int | None,  # Seeds at the last look
    margin: float,  # As a fraction
    training: StudyOptions,  # As given
):  # kdfast.analysis.design.Declared
    "Return the design of the matrix question. Raises KdfastError for looks that are none."
    from kdfast.analysis.matrix import question_design

    declared = question_design(given, chosen_looks(looks, max_seeds, training), margin)
    declared.design  # raises KdfastError for looks that are none
    return declared


def chosen_looks(
    looks: str | None,  # 3,5,8,…
    max_seeds: int | None,  # Seeds at the last look
    training: StudyOptions,  # As given
) -> tuple[int, ...]:
    """Return the numbers of seeds of all looks, none if they are not given.

    Raises KdfastError for --seeds beside them.
    """
    from kdfast.analysis.design import parse_looks
    from kdfast.stats.sequential import LOOKS

    if training.seeds != StudyOptions.seeds:
        raise KdfastError(f'--seeds {training.seeds} with --until-decided: the looks decide how many; use --max-seeds')
    numbers = () if looks is None else parse_looks(looks)
    return (*(n for n in numbers or LOOKS if n < max_seeds), max_seeds) if max_seeds else numbers


def refuse_looks(
    until_decided: bool,  # Whether there is a design
    looks: str | None,  # --looks
    max_seeds: int | None,  # --max-seeds
):
    "Raise KdfastError for options of a design without one."
    if not until_decided and (looks, max_seeds) != (None, None):
        raise KdfastError('--looks and --max-seeds are for --until-decided')


def train_until_decided(
    design,  # From `design_of` or `question_design_of`
    runs_dir,  # Directory of the runs
    data,  # Name of the data set
    train,  # Trains the first seeds of the study, given their number and whether to rehearse
    enough=None,  # Whether rows of differences end the study, as of `run_until_decided`
):
    "Declare the design, then train look by look; the first look rehearses the recipes."
    from kdfast.analysis.design import declare
    from kdfast.study.until_decided import run_until_decided

    declared = declare(runs_dir, data, design)
    if declared.finished_before:
        print_note(
            f'{declared.finished_before} runs of this study were finished before its design was declared; if you have '
            'compared them, the error rate holds for later seeds only'
        )
    return run_until_decided(
        declared, runs_dir, data, lambda look: train(look, rehearsed=look > declared.looks[0]), print_note, enough
    )
