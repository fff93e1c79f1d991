"Loss components of a batch (`parts`), which callbacks that add to the loss hold."

from fastai.basics import Callback


def parts_of(
    cb: Callback,  # Any callback
) -> dict:
    "Return the loss components (`parts`) of a callback, or an empty dictionary."
    parts = vars(cb).get('parts')  # getattr would also search the Learner
    return parts if isinstance(parts, dict) else {}


def merged(
    parts,  # Loss components by name, of each callback in order
):
    """Merge the loss components of callbacks that each add to the loss.

    The last total is the total of all; the first hard loss is the loss on labels alone.
    """
    whole = {}
    for own in parts:
        if own:
            whole = own | {name: value for name, value in whole.items() if name != 'total'}
    return whole
