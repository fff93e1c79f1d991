"""Networks that come from elsewhere: a teacher that is given as a run or as a file, code of runs before this one."""

import numpy as np
import torch

from kdfast.core.errors import KdfastError
from kdfast.core.format import percent
from kdfast.data.arrays import Rows
from kdfast.data.dataset import Data
from kdfast.runs import trust
from kdfast.runs.run_dir import RunDir
from kdfast.stats.chance import above_chance


def check_teacher(
    folder: RunDir,  # Of the teacher
):
    "Raise KdfastError for a run that is not finished or did not train a classifier."
    if not folder.finished:
        raise KdfastError(folder.flaw or f'{folder} is {folder.status}; a teacher must be finished')
    if all(folder.result.get(name) is None for name in ('valid_accuracy', 'valid_map')):
        raise KdfastError(
            f'{folder} is not a teacher: {folder.run["recipe"]} trains only a part of its network, not the classifier. '
            'Expected a run with a validation accuracy'
        )


def held_out_note(
    folder: RunDir,  # Of the teacher
    data: Data,  # Of the student
) -> str:
    "Return a note if the teacher was trained on images that the student holds out; else ''."
    own, teacher_images = data.load_arguments or {}, folder.run.get('images') or {}
    holdout, resplit = own.get('holdout'), own.get('resplit')
    same_split = teacher_images.get('resplit') == resplit
    drawn = holdout or not same_split and isinstance(data.valid[0], Rows)  # by default a fifth may be held out
    if drawn and teacher_images:
        same = teacher_images.get('source') == own.get('source')
    else:
        same = drawn and folder.data.split(',')[0] == data.name.split(',')[0]
    if not same or same_split and teacher_images.get('holdout', 0) >= holdout:
        return ''  # a larger holdout includes the images of a smaller one, class by class
    option = f'--holdout {holdout}' if same_split else 'another split'
    return (
        f'the teacher {folder} was trained on images that {option} holds out: '
        'its outputs there are better than on new images'
    )


def keep_code(
    run,  # kdfast.training.run.Run that was trained
    network: torch.nn.Module,  # To save in its directory
):
    "Copy the code that builds a network from the run that it was loaded from to this run."
    build_info = getattr(network, 'build_info', {})
    for folder in (run.folder, *(folder for _, folder in run.upstream)):
        try:
            sources = trust.read_sources(build_info, folder / 'weights.safetensors')
        except KdfastError:
            continue  # another network's run
        return trust.save_sources(sources, run.folder.path)


def check_given(
    run,  # kdfast.training.run.Run of a trained network that is used as it is
):
    "Say how many validation images the network gets right. Raises KdfastError at chance level."
    classes, rows = run.folder.confusion()
    matrix = np.array(rows)
    right, n = matrix.trace(), matrix.sum()
    if not above_chance(matrix):
        raise KdfastError(
            f'{run.folder.recipe} gets {right:,} of {n:,} validation images right, no more than by chance: it does '
            f'not know the {len(classes)} classes of {run.data.name}, or not in this order. Train it for some epochs'
        )
    run.say(f'{run.folder.recipe} gets {percent(right / n, 1)} of the {n:,} validation images right')
