"The question of the study: does the extra matrix that a hint needs affect the student's performance? Premises, evidence, verdict."

from collections.abc import Collection

import numpy as np

from kdfast.analysis.aggregate import differing_settings
from kdfast.analysis.differences import accuracy_step, paired_difference, with_verdict
from kdfast.core.errors import KdfastError
from kdfast.core.format import interval_text, signed_points, thousands
from kdfast.runs.find import find_runs
from kdfast.runs.lookup import all_arguments, runs_by_seed, settings
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import over_image_values, over_seeds

QUESTION = 'Does the extra matrix that a hint needs affect the student\'s performance?'
EXPERIMENTS = dict(exp1='experiment 1', exp2='experiment 2')
THIN, MATCHED, CONTROL = dict(student='thin'), dict(student='matched'), dict(student='matched', matrix=True)
SIZE = 0.03  # how far the two students' numbers of parameters may lie apart


def question_runs(
    more: dict,  # Arguments of every run, such as epochs
) -> list[tuple]:  # Recipes, each with its arguments
    "What the question is answered from: both students' baseline and experiments, and the experiments of the control."
    students = [(name, student) for student in (THIN, MATCHED) for name in ('baseline', *EXPERIMENTS)]
    return [(find_recipe(name), given | more) for name, given in students + [(name, CONTROL) for name in EXPERIMENTS]]


def answer_question(
    kept_in,  # Where runs are kept
    data: str,  # Name of the data set
    seeds: Collection[int],  # To be looked at
    more: dict,  # Arguments of every run that has them, such as epochs
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    """Premises with their evidence, and for each experiment three contrasts, from finished runs with these arguments.

    raw: `thin` (with the matrix) against `matched` (without); two networks differ, not the matrix alone.
    corrected: raw, less what the two baselines already differ by; answers the report's question.
    control: `matched` with a regressor of its own shape against `matched` without; the matrix is all that differs.
    """
    finished = [folder for folder in find_runs(kept_in, data) if folder.seed in seeds and folder.finished]

    def find(name, given):
        return runs_by_seed(finished, find_recipe(name), more | given)

    def stage_one(given):
        experiment = find_recipe('exp1')
        needed = dict(experiment.needed(all_arguments(experiment, more | given)))
        return runs_by_seed(finished, find_recipe('hint'), needed['hint'])

    thin, matched = find('baseline', THIN), find('baseline', MATCHED)
    effects = []
    for name in EXPERIMENTS:
        with_matrix, without, control = (find(name, given) for given in (THIN, MATCHED, CONTROL))
        effects.append(
            dict(
                experiment=name,
                raw=paired_difference(with_matrix, without, margin),
                corrected=corrected_difference(with_matrix, without, thin, matched, margin),
                control=paired_difference(control, without, margin),
            )
        )
    experiments = [
        folder for name in EXPERIMENTS for given in (THIN, MATCHED, CONTROL) for folder in find(name, given).values()
    ]
    stage_ones = [list(stage_one(given).values()) for given in (THIN, MATCHED, CONTROL)]
    if not thin or not matched or not all(stage_ones):
        raise KdfastError(f'no finished runs of both students on {data} in {kept_in}: kdfast matrix trains them')
    premises = [
        same_teacher(experiments),
        same_hint(*stage_ones),
        same_parameters(thin, matched),
        same_baselines(paired_difference(thin, matched, margin)),
    ]
    return dict(question=QUESTION, data=data, arguments=more, margin=margin, premises=premises, effects=effects)


def questions_answered(
    folders: list[RunDir],  # Runs on one data set
    kept_in,  # Where runs are kept
    margin: float,  # Smallest difference that matters, as a fraction
) -> list[dict]:
    "The facts for every set of arguments with which the question's runs are there, whoever started them."

    def is_matched(folder):
        return folder.run.get('arguments', {}).get('student') == MATCHED['student']

    asked = [f for f in folders if f.finished and f.run.get('recipe') in EXPERIMENTS and is_matched(f)]
    found = []
    for more in settings(asked, but=tuple(CONTROL)):
        try:
            found.append(answer_question(kept_in, folders[0].data, {f.seed for f in asked}, more, margin))
        except KdfastError:
            pass  # one student's runs are missing: the page says that the question is open
    return found


def corrected_difference(with_matrix, without, thin, matched, margin):
    "(with − without) − (thin − matched), by seed; with one seed, by image"
    quartets = [with_matrix, without, thin, matched]
    seeds = sorted(set.intersection(*(set(found) for found in quartets)))

    def contrast(values):
        return (values[0] - values[1]) - (values[2] - values[3])

    if not seeds:
        return dict(seeds=seeds, verdict=None)
    differ_in = ', '.join(differing_settings([found[seed] for found in quartets for seed in seeds]))

    def of_seed(seed):
        return contrast([found[seed].result['valid_accuracy'] for found in quartets])

    def of_images(seed):
        return contrast([np.array(found[seed].correct(), float) for found in quartets])

    if len(seeds) == 1:
        difference = over_image_values(of_images(seeds[0]), 2.0)  # one image moves it by two at most
    else:
        difference = over_seeds([of_seed(seed) for seed in seeds], 2 * accuracy_step(thin[seeds[0]]))
    return dict(seeds=seeds, differ_in=differ_in) | with_verdict(difference, margin)


# The premises


def premise(says, held, evidence):
    return dict(premise=says, state=held if isinstance(held, str) else 'held' if held else 'broken', evidence=evidence)


def same_teacher(experiments):
    hashes = {}
    for folder in experiments:
        hashes.setdefault(folder.seed, set()).add(folder.result['teacher_sha256'])
    said = '; '.join(
        f'seed {seed}: {", ".join(h[:8] for h in sorted(found))}' for seed, found in sorted(hashes.items())
    )
    return premise(
        'one teacher a seed', all(len(found) == 1 for found in hashes.values()), f'SHA-256 of its weights: {said}'
    )


def same_hint(thin, matched, control):
    hints = [folder.result['hint'] for folder in (*thin, *matched, *control)]
    places = {(hint['layers'].split(':')[0], tuple(hint['hint_shape'])) for hint in hints}
    needed = [{folder.result['hint']['matrix'] for folder in found} for found in (thin, matched, control)]
    gives = [shape_text(found[0].result['hint']['guided_shape']) for found in (thin, matched)]
    where = ', '.join(f'{layer}, {shape_text(of)}' for layer, of in sorted(places))
    return premise(
        'one hint layer and shape',
        len(places) == 1 and needed == [{True}, {False}, {True}],
        f'after {where}; thin gives {gives[0]} and needs the matrix, matched gives {gives[1]} and needs none',
    )


def shape_text(of):
    return '×'.join(map(str, of))


def same_parameters(thin, matched):
    small, large = (next(iter(found.values())).result for found in (thin, matched))
    said = '; '.join(
        f'{name} {thousands(r["params"])} parameters, {thousands(r["macs"])} multiply-adds'
        for name, r in (('thin', small), ('matched', large))
    )
    return premise(
        f'equally many parameters (±{SIZE:.0%})'.replace('%', ' %'),
        abs(large['params'] / small['params'] - 1) <= SIZE,
        said,
    )


def same_baselines(found):
    state = dict(alike='held', better='broken', worse='broken').get(found['verdict'], 'undecided')
    if found['verdict'] is None:
        return premise('baselines alike', state, 'no seed in common')
    return premise(
        'baselines alike',
        state,
        f'thin − matched: {signed_points(found["difference"])} points, {interval_text(found)} (n = {found["n"]} {found["of"]})',
    )
