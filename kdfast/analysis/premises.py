"""Check the premises of the regressor question: what must be equal for its answer to count. Imports no torch."""

from collections import defaultdict
from collections.abc import Sequence

from kdfast.core.format import interval_text, shape_text, signed_points, thousands
from kdfast.runs.run_dir import RunDir

PARAMETER_TOLERANCE = 0.03  # how much the numbers of parameters of the two students may differ


def premise(
    name: str,  # What must hold, in a few words
    state: str,  # held, broken or undecided
    evidence: str,  # The numbers behind the state
) -> dict:
    "Return a premise as plain data."
    return dict(premise=name, state=state, evidence=evidence)


def held_if(
    condition,  # Whether it holds
):
    "Return the state of a premise that can be checked exactly."
    return 'held' if condition else 'broken'


def same_teacher(
    experiments: Sequence[RunDir],  # Finished runs of all experiments
) -> dict:
    "Check that all runs of a seed had the same teacher."
    hashes = defaultdict(set)
    for folder in experiments:
        hashes[folder.seed].add(folder.result['teacher_sha256'])
    evidence = [f'seed {seed}: {", ".join(h[:8] for h in sorted(found))}' for seed, found in sorted(hashes.items())]
    same = all(len(found) == 1 for found in hashes.values())
    return premise('one teacher per seed', held_if(same), f'SHA-256 of its weights: {"; ".join(evidence)}')


def same_hint(
    thin: Sequence[RunDir],  # Runs of stage one with the thin student, at least one
    matched: Sequence[RunDir],  # With the matched student
    control: Sequence[RunDir],  # With the matched student and a regressor
) -> dict:
    "Check that all runs had the same hint layer and shape, and a regressor just where it is expected."
    hints = [folder.result['hint'] for folder in (*thin, *matched, *control)]
    places = sorted({(hint['layers'].split(':')[0], tuple(hint['hint_shape'])) for hint in hints})
    regressors = [{folder.result['hint']['matrix'] for folder in runs} for runs in (thin, matched, control)]
    thin_shape, matched_shape = (shape_text(runs[0].result['hint']['guided_shape']) for runs in (thin, matched))
    hint_layers = ', '.join(f'{layer} ({shape_text(shape)})' for layer, shape in places)
    return premise(
        'same hint layer and shape',
        held_if(len(places) == 1 and regressors == [{True}, {False}, {True}]),
        f'hint: {hint_layers}; guided layer of thin: {thin_shape}, needs a regressor; of matched: {matched_shape}, '
        'needs none',
    )


def same_parameters(
    thin: dict,  # Result of a run of the thin student
    matched: dict,  # Of the matched student
) -> dict:
    "Check that the two students have about the same number of parameters."
    sizes = [
        f'{name}: {thousands(result["params"])} parameters, {thousands(result["macs"])} multiply-adds'
        for name, result in (('thin', thin), ('matched', matched))
    ]
    same = abs(matched['params'] / thin['params'] - 1) <= PARAMETER_TOLERANCE
    name = f'same number of parameters (±{100 * PARAMETER_TOLERANCE:.0f} %)'
    return premise(name, held_if(same), '; '.join(sizes))


def same_baselines(
    difference: dict,  # thin − matched, from `contrast_of`
) -> dict:
    "Check that the baselines of the two students are equally accurate, within the margin."
    if difference['verdict'] is None:
        next_look = difference.get('next_look')
        evidence = f'first look at {next_look} seeds' if next_look else 'no common seed'
        return premise('baselines alike', 'undecided', evidence)
    state = dict(alike='held', better='broken', worse='broken', undecided='undecided')[difference['verdict']]
    points, interval = signed_points(difference['difference']), interval_text(difference)
    sample = f'n = {difference["n"]} {difference["of"]}'
    return premise('baselines alike', state, f'thin − matched: {points} points, {interval} ({sample})')
