"Recognize outputs of a softmax or sigmoid where logits are expected: a second one would flatten them."

from torch import Tensor

from kdfast.core.errors import KdfastError

TOLERANCE = 2e-3  # of the sums, which half precision rounds


def are_probabilities(
    outputs: Tensor,  # Of a network
    axis: int = 1,  # Dimension of the classes
) -> bool:
    "Return whether all outputs are at least 0 and sum to 1, and are not only 0 and 1."
    if outputs.dim() <= axis or outputs.shape[axis] < 2 or not outputs.numel():
        return False
    x = outputs.detach().float()
    sums_to_one = (x.sum(axis) - 1).abs() < TOLERANCE
    return bool((x >= 0).all() and sums_to_one.all() and not ((x == 0) | (x == 1)).all())


def reject_probabilities(
    outputs: Tensor,  # Of a network
    name: str,  # Of the network, for the error
    axis: int = 1,  # Dimension of the classes
):
    "Raise KdfastError if outputs are probabilities."
    if are_probabilities(outputs, axis):
        raise KdfastError(
            f'{name} returns probabilities (they sum to 1), expected logits: remove its last softmax, or let it return '
            'their logarithms'
        )


def reject_label_probabilities(
    outputs: Tensor,  # Of a trained network, (batch, …)
    name: str,  # Of the network, for the error
):
    """Raise KdfastError if outputs for several independent labels, or pixels, are probabilities.

    As logits, numbers from 0 to 1 only would mean that every label is present, none of them for certain. One label per
    image is too little to tell, and so are the logits of an untrained network, which may all be small.
    """
    x = outputs.detach()
    if x.dim() < 2 or not x.numel() or x[0].numel() < 2:
        return
    if bool(((x >= 0) & (x <= 1)).all() and not ((x == 0) | (x == 1)).all()):
        raise KdfastError(
            f'{name} returns probabilities (all are from 0 to 1), expected logits of labels: remove its last sigmoid'
        )
