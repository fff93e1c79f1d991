"""The teacher during a fit: in evaluation mode, without gradient, on the device of the student."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdfast.core.errors import KdfastError
from kdfast.distill.cuda_graphs.replay import GraphedInference
from kdfast.distill.recurrent import detached_copy, recurrent_copy
from kdfast.distill.student_hooks import StudentHook
from kdfast.distill.teacher_errors import computing
from kdfast.models.folding import TOLERANCE, faster, relative_difference
from kdfast.models.held import Watch
from kdfast.models.inference import (
    PARALLEL,
    copies,
    has_fixed_mode,
    in_precision,
    infer,
    is_compiled,
    is_training,
    precision_of,
    switch_to_evaluation,
    tensors,
    unwrapped,
    versions,
)


class Teacher:
    """Compute a teacher's outputs during a fit: in evaluation mode, and restored by `leave`.

    A network that shares weights with the student is copied when the fit begins. A network whose weights change
    during the fit, such as a moving average of the student's, is used with its weights at each batch; on a GPU, and
    for a part of a tensor, from the next epoch on if they are changed through `.data`. A faster copy is used if it
    gives the same outputs on the first batch (`kdfast.models.folding`).

    Raises KdfastError for a network that shares weights with the student and cannot be copied.
    """

    def __init__(
        self,
        given: nn.Module,  # The teacher
        student: nn.Module,  # The model of the Learner
        layers: list[str] = (),  # Names, in `unwrapped(given)`, of the layers to return; default: the output
        choose: Callable = lambda output: output,  # Selects a part of the teacher's output, if there are no layers
    ):
        self.layers, self.choose = layers, choose
        if any(map(is_lazy, tensors(given))):
            raise KdfastError(
                'the teacher has lazy layers without weights: load its weights, or give it a batch before it teaches'
            )
        shared = share_weights(given, student)
        copy = recurrent_copy(unwrapped(given))
        self.recurrent = copy is not None
        if shared or self.recurrent or layers or isinstance(given, PARALLEL):
            given = unwrapped(given)
        # A recurrent network is copied, too: two callbacks that call it would advance its state twice
        self.original = copy if self.recurrent else detached_copy(given) if shared else given
        self.source = self.original if shared else given
        self.network = None  # the original or a faster copy, chosen at the first batch
        self.writes = False  # whether the network writes into its input
        self.watch = self.sums = None  # what the outputs depend on, at the first batch
        self.graphed = GraphedInference()
        self.precision = precision_of(self.original)
        self.came_from = move(self.original, next(student.parameters()).device)
        self.in_training = [module for module in self.original.modules() if is_training(module)]
        switch_to_evaluation(self.original)
        self.prepared = None  # batch, versions of what its outputs depend on, and outputs that were computed ahead
        self.given = {}  # versions of the student's inputs in its last forward pass
        self.looks, self.hook = not is_compiled(student), None

    def __call__(
        self,
        xb: tuple,  # A batch of inputs
    ) -> list:  # Outputs of the layers; without layers, the selected output alone
        if self.looks:
            self.check_student(xb)
        prepared, self.prepared = self.prepared, None
        if prepared and prepared[0] is xb and prepared[1] == self.state(xb):
            return prepared[2]
        return self.outputs(xb)

    def prepare(
        self,
        xb: tuple,  # A batch of inputs
    ):
        """Compute the outputs of a batch before the student does, whose activations take no memory yet.

        Only on a CPU: on a GPU, both are replayed in the order in which they were captured. A recurrent network is
        left to the call, because it would advance twice if the batch changes; so are inputs such as dictionaries, in
        which a change would not be seen.
        """
        if not self.recurrent and all(isinstance(x, Tensor) and x.device.type == 'cpu' for x in xb):
            outputs = self.outputs(xb)
            self.prepared = xb, self.state(xb), outputs

    def state(
        self,
        xb,  # A batch of inputs
    ):
        "Return the versions of inputs and weights."
        return versions((*xb, *self.watch.tensors))

    def outputs(
        self,
        xb,  # A batch of inputs
    ):
        "Return the outputs of the layers; without layers, the selected output alone."
        if self.network is None:
            with computing(xb):
                return self.first(xb)
        xb = self.suited(xb)
        if self.network is not self.source and not self.watch.same:
            self.network = self.source
        return self.graphed(self.network, copies(xb) if self.writes else xb, self.layers, self.choose)

    def check_student(
        self,
        xb,  # The first batch of inputs
    ):
        "Raise KdfastError if the student has changed its input."
        if any(self.given.get(key, now) != now for key, now in versions(xb)):
            raise KdfastError(
                'the student writes into its input, which the teacher also receives: copy it in the student first'
            )
        self.looks = False

    def first(
        self,
        xb,  # A batch of inputs
    ):
        "Return the outputs of the first batch; choose a faster copy; note if it writes its input."
        xb = self.suited(xb)
        self.network = faster(self.original, xb, self.layers, self.choose)
        self.watch, self.sums = Watch(self.source, attributes=not self.recurrent), sums(self.source)
        self.forget()
        given = copies(xb)
        before = versions(given)
        outputs = infer(self.network, given, self.layers, self.choose)
        self.writes = versions(given) != before
        if has_fixed_mode(self.network):
            self.check_mode(xb, outputs)
        return outputs

    def check_mode(
        self,
        xb,  # The first batch of inputs
        outputs,  # Of the network for it
    ):
        "Raise KdfastError if a recorded network computes as in training: batch norms change, dropout draws."
        again = infer(self.network, copies(xb), self.layers, self.choose)
        differ = TOLERANCE < relative_difference(again, outputs) < float('inf')
        if differ or not torch.equal(sums(self.source), self.sums):
            raise KdfastError(
                'the teacher gives other outputs, or changes, each time it is called, as it was recorded in training '
                'mode: call eval() before torch.jit.trace or torch.export'
            )

    def suited(
        self,
        xb,  # A batch of inputs
    ):
        "Return the batch in the teacher's precision, which may differ from the student's."
        return in_precision(tuple(xb), self.precision)

    def begin(self):
        "Begin a pass over the data: reset recurrent state, and use the original if its weights have changed."
        if self.network not in (None, self.source) and not torch.equal(sums(self.source), self.sums):
            self.network = self.source
        self.forget()

    def forget(self):
        "Reset the state of a recurrent network."
        if self.recurrent:
            unwrapped(self.original if self.network is None else self.network).reset()

    def leave(self):
        "Restore the device and the training modes of the teacher."
        self.look_away()
        self.prepared = None
        self.graphed.forget()
        for module in self.in_training:
            module.training = True
        if self.came_from:
            self.original.to(self.came_from)

    def look_at(
        self,
        student: nn.Module,  # The model of the Learner
    ):
        "Note the inputs of the student's forward pass, until `look_away` or until they were checked."
        self.look_away()
        if self.looks:
            self.hook = student.register_forward_pre_hook(StudentHook(self.note))

    def note(
        self,
        student: nn.Module,  # About to compute
        inputs: tuple,  # Of its forward pass
    ):
        "Note the versions of inputs."
        self.given.clear()
        self.given.update(versions(inputs))

    def look_away(self):
        "Remove the hook on the student."
        if self.hook:
            self.hook.remove()
        self.hook = None


def sums(
    network,  # Any network
):
    "Return the sum of each weight tensor, on the CPU: it also changes with writes through `.data`."
    by_device = {}
    for t in tensors(network):
        by_device.setdefault(t.device, []).append(t.detach().float().sum())
    return torch.cat([torch.stack(of_device).cpu() for of_device in by_device.values()] or [torch.zeros(0)])


def move(
    network,  # Any network
    device,  # The device to move to
):
    "Move a network and return its former device; None if it is there already or spans several devices."
    found = {t.device for t in tensors(network)}
    if len(found) != 1 or found == {device}:
        return None
    network.to(device)
    return found.pop()


def share_weights(
    network,  # Any network
    other,  # Another network, or the same
):
    "Return whether two networks have a tensor, or its memory, in common."
    known = {key for t in tensors(network) for key in identities(t)}
    return any(key in known for t in tensors(other) for key in identities(t))


def identities(
    tensor,  # A weight
):
    "Return the id of a tensor and the address of its memory, if it has any."
    has_memory = not is_lazy(tensor) and tensor.layout is torch.strided
    return {id(tensor), tensor.untyped_storage().data_ptr() if has_memory else 0} - {0}
