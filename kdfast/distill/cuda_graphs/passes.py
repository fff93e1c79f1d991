"""The passes of a network as recordings: forward and backward in training, forward alone for a teacher."""

from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kdfast.distill.cuda_graphs.capture import as_type_of, capture, detached, parameters_replaced, state_preserved
from kdfast.models.inference import infer


class TrainingGraph:
    "Record the forward and the backward pass of a network in training, for one `State`."

    def __init__(
        self,
        network: nn.Module,  # Without `problem`
        x: Tensor,  # What it is called with
        like: Tensor
        | None = None,  # The gradient of an eager step's output: its layout decides on kernels, and so on bits
    ):
        self.network, self.x, self.like = network, detached(x).clone(), like
        self.weights = [p for p in network.parameters() if p.requires_grad]
        if not self.weights:
            raise ValueError('nothing in it is trained')
        self.leaves = {
            id(p): nn.Parameter(p.detach(), p.requires_grad) for p in network.parameters()
        }  # in the same memory
        self.turn, self.waiting = 0, lambda: None
        with state_preserved(network, x.device):
            self.output, self.play_forward = capture(
                self.forward, x.device, self.warm_up
            )  # two, and not in one pool: the second must not write where the first keeps what it needs
            self.gradients, self.play_backward = capture(self.backward, x.device)

    def warm_up(self):
        "Compute both passes; note which buffers they write, and the shape of the gradient."
        before = [(t, t._version) for t in self.network.buffers()]
        output = self.forward()
        if type(output) is not Tensor or not output.is_floating_point() or not output.requires_grad:
            raise ValueError('it gives no tensor that depends on its weights')
        self.written = [t for t, version in before if t._version != version]
        self.gradient = torch.zeros_like(
            output if self.like is None or self.like.shape != output.shape else self.like, dtype=output.dtype
        )
        self.backward()

    def forward(self):
        "Compute the output without the hooks of the whole network, which are called around this."
        with torch.enable_grad(), parameters_replaced(self.network, self.leaves):
            self.live = self.network.forward(self.x)
        return self.live

    def backward(self):
        """Compute the gradients of the leaves, without autocast, which is over by then.

        Not of the weights: autograd adds up a gradient on the stream on which it first met the weight.
        """
        with torch.autocast(self.x.device.type, enabled=False):
            return torch.autograd.grad(
                self.live,
                [self.leaves[id(p)] for p in self.weights],
                self.gradient,
                retain_graph=True,
                allow_unused=True,
            )

    @property
    def free(self):
        "Whether nobody can still ask for the gradient of the last forward pass, which the next overwrites"
        return self.waiting() is None

    def __call__(
        self,
        x: Tensor,  # Images
    ) -> Tensor:  # What the network makes of them; autograd knows how it depends on the weights
        output = ReplayedFunction.apply(self, detached(x), *self.weights)
        self.waiting = ref(output.grad_fn)
        return as_type_of(x, output)

    def replay_forward(
        self,
        x: Tensor,  # Images
    ):
        "Compute the output of a batch by replaying the recording."
        self.x.copy_(x)
        self.play_forward()
        torch.autograd.graph.increment_version(self.written)
        self.turn += 1
        return self.output.detach().clone()

    def replay_backward(
        self,
        gradient: Tensor,  # Of the output
        turn: int,  # Number of the forward pass that it belongs to
    ):
        "Compute the gradients of the weights by replaying the recording. Raises RuntimeError if it is late."
        if turn != self.turn:
            raise RuntimeError(
                'the gradient of a batch is asked for after the next batch was computed, '
                'and it was computed as a CUDA graph: keep no loss beyond its step'
            )
        self.gradient.copy_(gradient)
        self.play_backward()
        self.waiting = lambda: None
        copies = iter(
            torch._foreach_mul([g for g in self.gradients if g is not None], 1.0)
        )  # autograd takes what it is given for .grad
        return [g if g is None else next(copies) for g in self.gradients]


class ReplayedFunction(torch.autograd.Function):
    "A Training as autograd sees it: a function of the weights."

    @staticmethod
    def forward(ctx, training, x, *weights):
        output = training.replay_forward(x)
        ctx.training, ctx.turn = training, training.turn
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return None, None, *ctx.training.replay_backward(gradient, ctx.turn)


class InferenceGraph:
    "Record what `infer` returns for a network, for one `State`."

    def __init__(
        self,
        network: nn.Module,  # Without `problem`
        x: Tensor,  # What it is called with
        layers: list[str] = (),  # Whose outputs are wanted; without any, the network's own
    ):
        self.x = detached(x).clone()

        def compute():
            return infer(network, (self.x,), layers)

        with state_preserved(network, x.device):
            self.outputs, self.play = capture(compute, x.device, compute)
        if any(type(output) is not Tensor for output in self.outputs):
            raise ValueError('it gives no tensor')

    def __call__(
        self,
        x: Tensor,  # Images
    ) -> list[Tensor]:
        self.x.copy_(detached(x))
        self.play()
        return [as_type_of(x, output.clone()) for output in self.outputs]
