"""The features of a network before its classifier: one vector per image."""

from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.models.front import StopForward
from kdfast.models.inference import first_input, suited_inputs, uncompiled, unwrapped
from kdfast.models.noise import trial
from kdfast.models.tracing import mark_ends_pass


class Embedding(nn.Module):
    "Return what a network gives to its classifier. The network is shared, not copied."

    def __init__(
        self,
        network: nn.Module,  # Maps images to logits
        classifier: nn.Linear,  # Of the network
    ):
        super().__init__()
        self.network = network
        vars(self)['classifier'] = classifier  # part of the network, and not registered twice

    def forward(
        self,
        *inputs: Tensor,  # Of the network
    ) -> Tensor:  # (batch, features)
        "Run the network up to its classifier."
        found = []

        def stop(module, args, kwargs):
            found.append(first_input(args, kwargs))
            raise StopForward

        hook = self.classifier.register_forward_pre_hook(mark_ends_pass(stop), with_kwargs=True)
        try:
            with uncompiled(self.network):
                self.network(*inputs)
        except StopForward:
            pass
        finally:
            hook.remove()
        return found[0]


def embedding(
    network: nn.Module,  # Maps images to logits
    xb: Tensor,  # An image or two
) -> Embedding:
    """Find the linear layer that computes the logits, and return the network up to it.

    Raises KdfastError for networks that do more with the output of their last linear layer, or have none.
    """
    plain, outputs = unwrapped(network), {}

    def record(module, args, kwargs, output):
        features = first_input(args, kwargs)
        outputs[id(output)] = module, features, output  # the output stays alive, so that its id is its own

    linear = [m for m in plain.modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_hook(record, with_kwargs=True) for m in linear]
    try:
        with trial(plain):
            logits = plain(*suited_inputs(plain, xb))
    finally:
        for hook in hooks:
            hook.remove()
    classifier, features, _ = outputs.get(id(logits), (None, None, None))
    if classifier is None or features.dim() != 2:
        raise KdfastError(
            f'{type(plain).__name__} does not end with a linear classifier of one vector per image, so its features '
            'are unknown: choose another network'
        )
    return Embedding(network, classifier)


def n_features(
    embedded: Embedding,  # Of a network
) -> int:
    "Return the length of the vectors."
    return embedded.classifier.in_features


def standardized(
    teacher: Embedding,  # Frozen
) -> nn.Module:
    "Bring the vector of each image to mean 0 and variance 1."
    return nn.Sequential(teacher, nn.LayerNorm(n_features(teacher), elementwise_affine=False))


def projected(
    student: Embedding,  # To train
    teacher: Embedding,  # Frozen
) -> nn.Module:
    """Map the student's features linearly to as many as the teacher has.

    Raises KdfastError if the student has no weight before its classifier that trains.
    """
    classifier = {id(p) for p in student.classifier.parameters()}
    if not any(p.requires_grad and id(p) not in classifier for p in student.network.parameters()):
        raise KdfastError(
            f'{type(student.network).__name__} has no weight before its classifier that trains, so that its features '
            'cannot be trained: let the function that builds it leave some (requires_grad=True)'
        )
    return nn.Sequential(student, nn.Linear(n_features(student), n_features(teacher)))
