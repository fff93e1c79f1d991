"""The command that answers the question of the study: matrix."""

from kdfast.cli.app import TRAIN, SectionedCommand, app, out, print_json
from kdfast.cli.options import (
    DataOptions,
    EpochsOption,
    JsonOption,
    MarginOption,
    MetricOption,
    StudyOptions,
    expand_groups,
    to_fraction,
)
from kdfast.cli.recipes import setting_parameters
from kdfast.cli.study import raise_if_failed, train_all, without_none
from kdfast.runs.options import SETTINGS
from kdfast.runs.recipes import changed_values


def matrix(
    epochs: EpochsOption = None,
    margin: MarginOption = 0.8,
    metric: MetricOption = None,
    as_json: JsonOption = False,
    *,
    training: StudyOptions,
    images: DataOptions,
    **settings,  # Of every training
):
    """Test whether the regressor changes accuracy.

    Trains what is missing, then prints the premises, the differences with their intervals, and the answer.
    """
    from kdfast.analysis.matrix import answer_question, question_runs
    from kdfast.report.matrix import question_view

    given = without_none(dict(epochs=epochs)) | changed_values(SETTINGS, settings)
    limit = to_fraction(margin)
    data, failed = train_all(question_runs(given), training, images, metric)
    try:
        found = answer_question(training.runs, data, range(training.seeds), given, limit, metric)
        if as_json:
            print_json(found)
        else:
            out.print(question_view(found))
    finally:
        raise_if_failed(failed)


app.command(cls=SectionedCommand, rich_help_panel=TRAIN)(expand_groups(matrix, setting_parameters()))
