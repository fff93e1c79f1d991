"""The command that answers the question of the study: matrix."""

from typing import Annotated

import typer

from kdfast.cli.against import JudgedMarginOption, given_margin
from kdfast.cli.app import TRAIN, SectionedCommand, app, out, print_json
from kdfast.cli.designs import question_design_of, refuse_looks
from kdfast.cli.options import (
    DataOptions,
    EpochsOption,
    JsonOption,
    MetricOption,
    StudyOptions,
    expand_groups,
    to_fraction,
)
from kdfast.cli.recipes import setting_parameters
from kdfast.cli.study import LooksOption, MaxSeedsOption, raise_if_failed, train_all, without_none
from kdfast.core.ranges import MARGIN_POINTS
from kdfast.runs.options import SETTINGS
from kdfast.runs.recipes import changed_values

UntilDecidedOption = Annotated[
    bool,
    typer.Option(
        '--until-decided',
        help='Add seeds until the primary contrast is decided: experiment 2, corrected for the baselines.',
    ),
]


def matrix(
    epochs: EpochsOption = None,
    margin: JudgedMarginOption = None,
    metric: MetricOption = None,
    as_json: JsonOption = False,
    until_decided: UntilDecidedOption = False,
    looks: LooksOption = None,
    max_seeds: MaxSeedsOption = None,
    *,
    training: StudyOptions,
    images: DataOptions,
    **settings,  # Of every training
):
    """Test whether the regressor changes accuracy.

    Trains what is missing, then prints the premises, the differences with their intervals, and the answer. The primary
    contrast is that of experiment 2, corrected for the baselines.

    With --until-decided, seeds are added until it is decided. The numbers of seeds at which the study is looked at are
    written down before the first run, so that at most 5 % of studies answer wrongly.
    """
    from kdfast.analysis.matrix import answer_question, question_runs
    from kdfast.report.matrix import question_view

    given = without_none(dict(epochs=epochs)) | changed_values(SETTINGS, settings)
    limit = given_margin(margin)
    refuse_looks(until_decided, looks, max_seeds)
    declared = to_fraction(MARGIN_POINTS if margin is None else margin)
    design = question_design_of(given, looks, max_seeds, declared, training) if until_decided else None
    data, failed = train_all(question_runs(given), training, images, metric, design)
    try:
        found = answer_question(training.runs, data, range(training.seeds), given, limit, metric)
        if as_json:
            print_json(found)
        else:
            out.print(question_view(found))
    finally:
        raise_if_failed(failed)


app.command(cls=SectionedCommand, rich_help_panel=TRAIN)(expand_groups(matrix, setting_parameters()))
