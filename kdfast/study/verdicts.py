"The verdicts that a study has so far, under the designs that were declared. Imports no torch."

from collections.abc import Sequence

from kdfast.analysis.design import find_designs
from kdfast.analysis.differences import differences_from
from kdfast.core.errors import KdfastError
from kdfast.core.format import signed_points
from kdfast.runs.find import find_runs
from kdfast.runs.run_dir import RunDir


def verdicts_so_far(
    folders: Sequence[RunDir],  # Runs of the study, on one data set; they need not exist yet
) -> list[str]:
    "Return a line for each design: its verdicts, and at how many seeds each recipe was looked at."
    root, data = folders[0].path.parents[2], folders[0].data
    lines = []
    for declared in find_designs(root, data):
        try:
            rows = differences_from(find_runs(root, data), declared.against, declared.margin, declared.metric)
        except KdfastError:
            continue  # no finished baseline yet
        texts = [verdict_text(row) for row in rows if row['recipe'] in declared.recipes]
        if texts:
            lines.append(f'against {declared.against}: {", ".join(texts)}')
    return lines


def verdict_text(
    row: dict,  # From `differences_from`
) -> str:
    "Format a verdict with its difference and its look: kd better (+1.20 points, 5 seeds)."
    if row['verdict'] is None:
        return f'{row["recipe"]} not looked at yet'
    return f'{row["recipe"]} {row["verdict"]} ({signed_points(row["difference"])} points, {row["n"]} seeds)'
