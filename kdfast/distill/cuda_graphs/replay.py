"""Replay recordings in the steps of a fit: the student's passes, and the teacher's outputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdfast.core.notes import say
from kdfast.distill.cuda_graphs.capture import on_gpu
from kdfast.distill.cuda_graphs.passes import InferenceGraph, TrainingGraph
from kdfast.distill.cuda_graphs.safety import class_forward, is_safe, problem, unfit
from kdfast.distill.cuda_graphs.state import State
from kdfast.distill.fit import FitCallback
from kdfast.models.inference import infer

CALLS_BEFORE = 3  # equal calls before a recording: libraries have then been loaded and kernels chosen
MAX_HELD = 2  # recordings of a network at a time: each occupies as much memory as a step
MAX_RECORDINGS = 16  # of a network in a fit: if more are needed, recording does not pay


class Recordings:
    "The recordings of a network in a fit. One is made after a few equal calls; none after a failure."

    def __init__(
        self,
        make: Callable,  # Records, given the network and its input
        notify: Callable,  # Receives the reason if recording fails
    ):
        self.make, self.notify = make, notify
        self.held, self.last, self.seen, self.made, self.replays = [], None, 0, 0, 0

    def find(
        self,
        network: nn.Module,  # The network that is called
        xb: tuple,  # What it is called with
    ):  # From `make`; None if the network has to compute
        "Return the recording that is valid for this call."
        if len(xb) != 1 or not on_gpu(xb[0]) or unfit(xb[0]):
            return None
        (x,) = xb
        for state, recording in reversed(self.held):
            if state.holds(network, x):
                return recording
        if self.made >= MAX_RECORDINGS or problem(network, x):
            return None
        if not (self.last and self.last.holds(network, x)):
            self.last, self.seen = State(network, x), 0
        self.seen += 1
        if self.seen <= CALLS_BEFORE:
            return None
        self.made += 1
        try:
            recording = self.make(network, x)
        except Exception as e:  # of any kind that CUDA, a driver or an operation without a capture may raise
            self.made, self.held, self.last = MAX_RECORDINGS, [], None
            why = f'{type(e).__name__}: {str(e).partition(chr(10))[0]}'
            self.notify(f'the {type(network).__name__} is not replayed as a CUDA graph: {why}')
            return None
        self.held, self.last = [*self.held[1 - MAX_HELD :], (self.last, recording)], None
        return recording


class CudaGraphs(FitCallback):
    """Replay the student's forward and backward pass as CUDA graphs in training steps.

    Validation and predictions are not replayed. The network's `forward` is replaced from `before_batch` until it is
    called: between steps, when the network may be saved or copied, it is unchanged. fastai's events, loss and
    optimizer are not affected.
    """

    order = 1000  # the batch and autocast are as the student will find them

    def __init__(
        self,
        notify: Callable = lambda note: None,  # Receives the reason if recording a network fails
    ):
        self.notify, self.armed, self.recordings, self.gradient = notify, None, None, None

    def before_fit(self):
        self.recordings, self.gradient = (
            Recordings(lambda network, x: TrainingGraph(network, x, self.gradient), self.notify),
            None,
        )

    def before_batch(self):
        self.disarm()
        model = self.model
        if (
            self.training
            and is_safe(type(model), class_forward(model))
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
        recording = self.recordings.find(network, xb) if torch.is_grad_enabled() and not named else None
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


class GraphedInference:
    "Compute a network in evaluation mode (`infer`); in training steps, replay it as a CUDA graph."

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
        choose: Callable = lambda output: output,  # Selects a part of the output, if there are no layers
    ) -> list:  # Outputs of the layers; or, alone, of the network
        recordings = self.recordings.setdefault(
            tuple(layers), Recordings(lambda network, x: InferenceGraph(network, x, layers), say)
        )
        recording = (
            recordings.find(network, xb) if torch.is_grad_enabled() else None
        )  # validation has batches of other sizes, few of each
        if recording is None:
            return infer(network, xb, layers, choose)
        recordings.replays += 1
        outputs = recording(*xb)
        return outputs if layers else [choose(outputs[0])]
