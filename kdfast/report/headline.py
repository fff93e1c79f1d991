"The main result of a run, and of all runs on a data set, as one sentence. Imports no torch."

import shlex
from collections.abc import Sequence

from kdfast.analysis.results import classifies, has_several_labels, main_score
from kdfast.core.errors import listed
from kdfast.core.format import loss_text, percent, signed_points, thousands
from kdfast.runs.run_dir import RunDir


def headline(
    folder: RunDir,  # A finished run
    teachers: Sequence[RunDir],  # Its teachers
) -> str:
    "Return what a run reaches, how far that is from its teacher, and how much smaller it is."
    result = folder.result
    name = result['recipe'].split(',')[0]
    if not classifies(result):
        return f'{name} trains no classifier, so it has no accuracy; {loss_phrase(result)}.'
    if main_score(result) is None:
        return f'{name} has no mean average precision, as no validation image has a label.'
    test = test_score(result)
    return (
        f'{name} reaches {score_phrase(result)} on {images_text(result.get("valid_images"), "validation")}'
        f'{teacher_phrase(folder, teachers)}'
        + (f'; on {images_text(result["test_images"], "test")} it reaches {percent(test)}' if test is not None else '')
        + ('; it is used as it was given, without training' if not result['epochs'] else '')
        + '.'
    )


def score_phrase(
    result,  # Content of result.json
):
    "Return the main score; an accuracy needs no name."
    return f'{"a mean average precision of " if has_several_labels(result) else ""}{percent(main_score(result))}'


def loss_phrase(
    result,  # Content of result.json
):
    "Return the last loss: that of the fit to the teacher's features, if there is one."
    kind = 'training' if result.get('fit_loss') is None else 'fit'
    loss = result.get('train_loss' if kind == 'training' else 'fit_loss')
    value = 'unknown' if loss is None else loss_text(loss)
    return f'its {kind} loss is {value} after {counted(result["epochs"], "epoch")}'


def images_text(
    n: int | None,  # None for runs of earlier versions
    split: str,  # validation or test
):
    "Return how many images of a split there are."
    return f'the {split} images' if n is None else counted(n, f'{split} image')


def counted(
    n: int,  # How many
    name: str,  # Of one
) -> str:
    "Return a number of things: 1 epoch, 4,000 images."
    return f'{n:,} {name}{"s" * (n != 1)}'


def test_score(
    result: dict,  # Content of result.json
) -> float | None:
    "Return the score of the test images; None without them."
    return result.get('test_map' if has_several_labels(result) else 'test_accuracy')


def teacher_phrase(
    folder,  # A finished run that classifies
    teachers,  # Its teachers
):
    "Return how the score and the number of parameters relate to those of the teachers, if there are any."
    result = folder.result
    if not teachers:
        return f', with {thousands(result["params"])} parameters'
    if len(teachers) > 1:
        scores = listed([teacher_text(folder, teacher) for teacher in teachers])
        return f', with {thousands(result["params"])} parameters; its teachers reach {scores}'
    [teacher] = teachers
    size = f', with {size_phrase(result["params"], teacher.result["params"])}'
    if not on_same_images(folder, teacher):
        return f'{size}; its teacher reaches {teacher_text(folder, teacher)}'
    theirs = main_score(teacher.result)
    return f': {difference_phrase(main_score(result) - theirs)} its teacher ({percent(theirs)}){size}'


def teacher_text(
    folder,  # A run
    teacher,  # One of its teachers
):
    "Return the score of a teacher, with its images if they are others."
    other = '' if on_same_images(folder, teacher) else f' on other images ({teacher.data})'
    score = main_score(teacher.result)
    return f'{"no score" if score is None else percent(score)}{other}'


def on_same_images(
    folder: RunDir,  # A run
    other: RunDir,  # Another run
) -> bool:
    "Return whether both runs were evaluated on the same images, and by the same score."
    same = folder.data == other.data and folder.run.get('data_sha256') == other.run.get('data_sha256')
    return same and has_several_labels(folder.result) == has_several_labels(other.result)


def difference_phrase(
    difference: float,  # Of two fractions
) -> str:
    "Return a difference of scores as words: 4.12 points below, as accurate as."
    text = signed_points(difference).lstrip('+−')
    return 'as accurate as' if float(text) == 0 else f'{text} points {"above" if difference > 0 else "below"}'


def size_phrase(
    params: int,  # Of the student
    teacher_params: int,  # Of the teacher
) -> str:
    "Return the number of parameters relative to the teacher's: 4.3× fewer parameters."
    change = change_text(params, teacher_params)
    return f'{change.replace("equal", "as many").replace("less", "fewer")} parameters'


def change_text(
    value: float,  # Of the student
    teacher_value: float,  # Of the teacher
) -> str:
    "Return a ratio as text: 4.3× less, 1.5× more, equal, about equal."
    if not value or not teacher_value:
        return ''
    ratio = teacher_value / value
    factor = f'{max(ratio, 1 / ratio):.1f}×'
    return (
        'equal' if ratio == 1 else 'about equal' if factor == '1.0×' else f'{factor} {"less" if ratio > 1 else "more"}'
    )


def baseline_sentence(
    folder: RunDir,  # A finished run that classifies
    baseline: RunDir,  # From `baseline_of`
) -> str:
    "Return the distance from the baseline."
    theirs = main_score(baseline.result)
    return (
        f'{signed_points(main_score(folder.result) - theirs)} points against {baseline.recipe} ({percent(theirs)}), '
        'with one seed.'
    )


def compare_command(
    against: str,  # Name of the runs to compare with
    flags: Sequence[str],  # That choose the data set and the directory of the runs
) -> str:
    "Return the command that judges the differences from a recipe."
    return shlex.join(['kdfast', 'compare', '--against', against, *flags])


# All runs on a data set


def comparison_sentences(
    rows: Sequence[dict],  # From `aggregate`
    flags: Sequence[str] = (),  # That choose the data set and the directory of the runs
) -> str:  # Empty without a classifier
    "Return the best student beside baseline and teacher and, on a line of its own, the next command."
    score = 'valid_map' if any(row['valid_map'] for row in rows) else 'valid_accuracy'
    kinds = by_kind([row for row in rows if row[score]])
    best = {kind: max(of_kind, key=lambda row: row[score]['mean']) for kind, of_kind in kinds.items() if of_kind}
    if not best:
        return ''
    first, *others = best.values()
    name = 'mean average precision' if score == 'valid_map' else 'accuracy'
    highest = (
        f'the highest validation {name} of the students:' if len(kinds['student']) > 1 else f'a validation {name} of'
    )
    seeds = 'one seed' if first['n'] == 1 else f'mean of {first["n"]} seeds'
    parts = [f'{first["recipe"]} has {highest} {percent(first[score]["mean"])} ({seeds})']
    if others:
        parts.append(', '.join(f'{row["recipe"]} {percent(row[score]["mean"])}' for row in others))
    sentence = f'{"; ".join(parts)}.'
    if not {'student', 'baseline'} <= best.keys():
        return sentence
    command = compare_command(best['baseline']['recipe'], flags)
    return f'{sentence}\n{command} tells which differences exceed chance.'


def by_kind(
    rows,  # From `aggregate`
):
    "Return the rows of students, baselines and teachers, in this order."
    kinds = dict(student=[], baseline=[], teacher=[])
    for row in rows:
        name = row['recipe'].split(',')[0]
        kinds[name if name in kinds else 'student'].append(row)
    return kinds
