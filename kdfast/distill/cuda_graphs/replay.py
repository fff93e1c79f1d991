"""Replay recordings in the steps of a fit: the student's passes, and the teacher's answers."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdfast.distill.cuda_graphs.capture import on_gpu
from kdfast.distill.cuda_graphs.passes import Inference, Training
from kdfast.distill.cuda_graphs.safety import is_safe, problem, unfit
from kdfast.distill.cuda_graphs.state import State
from kdfast.distill.fit import FitCallback
from kdfast.models.inference import ask

AFTER = 3  # calls alike before one is recorded: what is loaded or chosen when it is first used is so by then
HELD = 2  # recordings of a network at a time, the last used: each holds as much memory as a step
MOST = 16  # recordings of a network in a fit: beyond, something changes so often that recording is no gain


class Recordings:
    "The recordings of a network in a fit. One is made after a few equal calls; none after a failure."

    def __init__(
        self,
        make: Callable,  # Records, given the network and its input
        said: Callable,  # Is told why not, where recording fails
    ):
        self.make, self.said = make, said
        self.held, self.last, self.seen, self.made, self.replays = [], None, 0, 0, 0

    def of(
        self,
        network: nn.Module,  # The network that is called
        xb: tuple,  # What it is called with
    ):  # What `make` gave; None where it is to compute as ever
        "Return the recording that is valid for this call."
        if len(xb) != 1 or not on_gpu(xb[0]) or unfit(xb[0]):
            return None
        (x,) = xb
        for state, recording in reversed(self.held):
            if state.holds(network, x):
                return recording
        if self.made >= MOST or problem(network, x):
            return None
        if not (self.last and self.last.holds(network, x)):
            self.last, self.seen = State(network, x), 0
        self.seen += 1
        if self.seen <= AFTER:
            return None
        self.made += 1
        try:
            recording = self.make(network, x)
        except Exception as e:  # of any kind that CUDA, a driver or an operation without a capture may raise
            self.made, self.held, self.last = MOST, [], None
            why = f'{type(e).__name__}: {str(e).partition(chr(10))[0]}'
            self.said(f'the {type(network).__name__} is not replayed as a CUDA graph: {why}')
            return None
        self.held, self.last = [*self.held[1 - HELD :], (self.last, recording)], None
        return recording


class CudaGraphs(FitCallback):
    """Replay the student's forward and backward pass as CUDA graphs in training steps.

    Validation and predictions compute as ever. The network's `forward` is another one from the last `before_batch`
    until it is called: nothing is left on the network between steps, where it is saved, copied or looked at. fastai's
    events, loss and optimizer know nothing of it.
    """

    order = 1000  # the batch and autocast are as the student will find them

    def __init__(
        self,
        said: Callable = lambda note: None,  # Is told why a network is not replayed, where that was tried
    ):
        self.said, self.armed, self.recordings, self.gradient = said, None, None, None

    def before_fit(self):
        self.recordings, self.gradient = (
            Recordings(lambda network, x: Training(network, x, self.gradient), self.said),
            None,
        )

    def before_batch(self):
        self.disarm()
        model = self.model
        if (
            self.training
            and is_safe(type(model), type(model).forward)
            and 'forward' not in vars(model)
            and not model._compiled_call_impl
        ):
            self.armed = model
            vars(model)['forward'] = self.compute

    def disarm(self):
        "Restore the network's own `forward`."
        if self.armed is not None:
            vars(self.armed).pop('forward', None)
        self.armed = None

    def compute(
        self,
        *xb,  # Inputs of the network
        **named,  # Inputs by name; with any, nothing is replayed
    ):
        "Replay or compute the network's output, once in place of its `forward`."
        network = self.armed
        self.disarm()
        recording = self.recordings.of(network, xb) if torch.is_grad_enabled() and not named else None
        if recording is None or not recording.free:
            return self.eager(network.forward(*xb, **named))
        self.recordings.replays += 1
        return recording(*xb)

    def eager(
        self,
        output,  # Of the network, computed as usual
    ):
        "Return the output unchanged; note its gradient when autograd computes it."

        def look(gradients):
            self.gradient = gradients[0]

        if isinstance(output, Tensor) and output.grad_fn is not None:
            output.grad_fn.register_prehook(look)
        return output

    def after_pred(self):
        self.disarm()

    def after_cancel_batch(self):
        self.disarm()

    def leave(self):
        "Restore the network and drop the recordings."
        self.disarm()
        self.recordings, self.gradient = None, None

    def after_fit(self):
        self.leave()

    def __reduce__(self):
        return (CudaGraphs, (), dict(_learn=self._learn))  # a copy, of a Learner that is saved in a fit, records anew


class Answers:
    "What a network gives in evaluation mode (`ask`): in training steps, replayed as a CUDA graph."

    def __init__(self):
        self.forget()

    def forget(self):
        "Drop all recordings."
        self.recordings = {}

    def __call__(
        self,
        network: nn.Module,  # Any network
        xb: tuple,  # What it is called with
        layers: list[str] = (),  # Layers whose outputs are wanted
        choose: Callable = lambda output: (
            output
        ),  # Gives, of the network's output, what is wanted where there are no layers
    ) -> list:  # Outputs of the layers; or, alone, of the network
        recordings = self.recordings.setdefault(
            tuple(layers), Recordings(lambda network, x: Inference(network, x, layers), say)
        )
        recording = (
            recordings.of(network, xb) if torch.is_grad_enabled() else None
        )  # validation has batches of other sizes, few of each
        if recording is None:
            return ask(network, xb, layers, choose)
        recordings.replays += 1
        outputs = recording(*xb)
        return outputs if layers else [choose(outputs[0])]


def say(
    note: str,  # One sentence
):
    "Print a note to stderr."
    print(f'kdfast: {note}', file=sys.stderr)
