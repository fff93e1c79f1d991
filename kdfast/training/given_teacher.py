"""Check a teacher that is given as a run directory."""

from kdfast.core.errors import KdfastError
from kdfast.data.dataset import Data
from kdfast.runs.run_dir import RunDir


def check_teacher(
    folder: RunDir,  # Of the teacher
):
    "Raise KdfastError for a run that is not finished or did not train a classifier."
    if not folder.finished:
        raise KdfastError(f'{folder} is {folder.status}; a teacher must be finished')
    if folder.result.get('valid_accuracy') is None:
        raise KdfastError(
            f'{folder} is not a teacher: {folder.run["recipe"]} trains only a part of its network, not the classifier. '
            'Expected a run with a validation accuracy'
        )


def held_out_note(
    folder: RunDir,  # Of the teacher
    data: Data,  # Of the student
) -> str:
    "Return a note if the teacher was trained on images that the student holds out; else ''."
    holdout = (data.load_arguments or {}).get('holdout')
    teacher_images = folder.run.get('images') or {}
    if holdout and teacher_images:
        same = teacher_images.get('source') == data.load_arguments['source']
    else:
        same = holdout and folder.data.split(',')[0] == data.name.split(',')[0]
    if not same or teacher_images.get('holdout', 0) >= holdout:
        return ''  # a larger holdout includes the images of a smaller one, class by class
    return (
        f'the teacher {folder} was trained on images that --holdout {holdout} holds out: '
        'its outputs there are better than on new images'
    )
