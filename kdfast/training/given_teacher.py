"""Check a teacher that was given by the directory of its run."""

from kdfast.core.errors import KdfastError
from kdfast.data.dataset import Data
from kdfast.runs.run_dir import RunDir

# Runs that were given by name


def check_teacher(
    folder: RunDir,  # Of a run that is to teach
):
    "Raise KdfastError for a run that is not finished, or whose recipe leaves nothing to classify with."
    if not folder.finished:
        raise KdfastError(f'{folder} is {folder.status}, not finished: a teacher must be')
    if folder.result.get('valid_accuracy') is None:
        raise KdfastError(
            f'{folder} is no teacher: {folder.run["recipe"]} trains a part of its network and leaves the classifier new. Expected a run with a validation accuracy'
        )


def held_out_note(
    folder: RunDir,  # Of a run that teaches
    data: Data,  # What its student is validated on
) -> str:
    "A note where the teacher was trained on images that are now held out; nothing where it was not, as far as the runs say."
    held, was = (data.asked or {}).get('holdout'), folder.run.get('images') or {}
    same = (
        was.get('source') == data.asked['source']
        if held and was
        else held and folder.data.split(',')[0] == data.name.split(',')[0]
    )
    if not same or was.get('holdout', 0) >= held:
        return ''  # of a class, the images of a smaller share are among those of a larger
    return f'the teacher {folder} was trained on images that --holdout {held} holds out: what it teaches there is better than it will be on new images'
