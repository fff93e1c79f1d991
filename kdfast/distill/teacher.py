"""The teacher as a fit uses it: in evaluation mode, without gradient, on the student's device, and as it was given."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdfast.core.errors import KdfastError
from kdfast.distill.cuda_graphs.replay import Answers
from kdfast.models.folding import faster
from kdfast.models.held import Held
from kdfast.models.inference import PARALLEL, ask, copies, is_compiled, tensors, unwrapped


class Teacher:
    """A teacher in a fit: what the network that was given computes in evaluation mode.

    A network that shares weights with the student is used as it is when the fit begins. One whose weights change in the fit, such
    as a moving average of the student's, is used as it is at each batch; where they change through `.data`, from the next epoch on.
    Where a faster copy gives the same for the first batch, that is used (`kdfast.models.folding`).
    Raises KdfastError for one that shares weights with the student, or is recurrent, and cannot be copied.
    """

    def __init__(
        self,
        given: nn.Module,  # The teacher
        student: nn.Module,  # The model of the Learner
        layers: list[str] = (),  # Names, in `unwrapped(given)`, of layers whose outputs are wanted
        choose: Callable = lambda output: (
            output
        ),  # Gives, of the teacher's output, what is wanted where there are no layers
    ):
        self.layers, self.choose = layers, choose
        shared, recurrent = share_weights(given, student), hasattr(unwrapped(given), 'reset')
        if shared or recurrent or layers or isinstance(given, PARALLEL):
            given = unwrapped(given)
        self.original = (
            detached_copy(given) if shared or recurrent else given
        )  # two that ask a recurrent network would advance it twice
        self.source = self.original if shared else given
        self.network, self.writes, self.held, self.weights = None, False, None, None
        self.answers = Answers()
        precisions = {t.dtype for t in tensors(self.original) if t.is_floating_point()}
        self.precision = precisions.pop() if len(precisions) == 1 else None  # of several, it decides itself
        self.came_from = move(self.original, next(student.parameters()).device)
        self.in_training = [module for module in self.original.modules() if module.training]
        self.original.eval()
        self.given = {}  # to the student, in its last forward pass: how often each tensor had been written to

        def note(student, inputs, given=self.given):
            given.clear(), given.update(versions(inputs))

        self.look = None if is_compiled(student) else student.register_forward_pre_hook(note)

    def __call__(
        self,
        xb: tuple,  # A batch of inputs
    ) -> list:  # Outputs of the layers; or, alone, of the teacher
        if self.network is None:
            return self.first(xb)
        xb = self.suited(xb)
        if self.network is not self.source and not self.unchanged:
            self.network = self.source
        return self.answers(self.network, copies(xb) if self.writes else xb, self.layers, self.choose)

    def first(self, xb):
        "Of the first batch, before which a faster copy is tried; notes whether a network writes into what it is given"
        if any(self.given.get(key, now) != now for key, now in versions(xb)):
            raise KdfastError(
                'the student writes into its input, and the teacher would be given what it made of that: let it work on a copy'
            )
        self.stop_looking()
        xb = self.suited(xb)
        self.network = faster(self.original, xb, self.layers, self.choose)
        self.held, self.sums = Held(self.source), sums(self.source)
        self.weights = versions(self.held.tensors)
        self.forget()
        given = copies(xb)
        before = versions(given)
        outputs = ask(self.network, given, self.layers, self.choose)
        self.writes = versions(given) != before
        return outputs

    @property
    def unchanged(self):
        "Whether the weights are those of the first batch, and nothing was written to them"
        return self.held.same and versions(self.held.tensors) == self.weights

    def suited(self, xb):
        "The batch in the teacher's precision, which need not be the student's"
        return tuple(
            x.to(self.precision) if self.precision and isinstance(x, Tensor) and x.is_floating_point() else x
            for x in xb
        )

    def begin(self):
        "A pass over the data begins: a recurrent network forgets the batches before, and weights that have changed are noticed."
        if self.network not in (None, self.source) and not torch.equal(sums(self.source), self.sums):
            self.network = self.source
        self.forget()

    def forget(self):
        network = unwrapped(self.original if self.network is None else self.network)
        if hasattr(network, 'reset'):
            network.reset()

    def leave(self):
        "The teacher goes back to the device and the modes that it came from."
        self.stop_looking()
        self.answers.forget()
        for module in self.in_training:
            module.training = True
        if self.came_from:
            self.original.to(self.came_from)

    def stop_looking(self):
        if self.look:
            self.look.remove()
        self.look = None


def versions(those):
    "How often each of the tensors was written to; equal as long as nothing was"
    return [(id(t), t._version) for t in those if isinstance(t, Tensor) and not t.is_inference()]


def sums(network):
    "Changes with the weights, also where they are written to through `.data`"
    return torch.stack([t.detach().float().sum() for t in tensors(network)] or [torch.tensor(0.0)])


def move(network, device):
    "To a device, and where it was; None where it need not, or cannot as a whole"
    found = {t.device for t in tensors(network)}
    if len(found) != 1 or found == {device}:
        return None
    network.to(device)
    return found.pop()


def share_weights(network, other):
    own = {key for t in tensors(network) for key in identities(t)}
    return any(key in own for t in tensors(other) for key in identities(t))


def identities(tensor):
    "Of a tensor, and of its memory, where it has any"
    return {id(tensor), tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0} - {0}


def detached_copy(network):
    try:
        with Detached():
            return deepcopy(network)
    except Exception as e:  # whatever a network of somebody else's holds
        raise KdfastError(
            f'the teacher shares weights with the student, or is recurrent, and cannot be copied ({type(e).__name__}: {e}): '
            'give a network of its own that can'
        ) from e


class Detached(TorchFunctionMode):
    "Lets deepcopy copy what autograd has computed and a network has kept, too"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            args = args[0].detach(), *args[1:]
        return func(*args, **(kwargs or {}))
