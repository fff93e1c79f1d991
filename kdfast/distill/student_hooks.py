"""Hooks on the student, during its forward pass in a fit alone, and without effect in copies of it."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.models.inference import copied, is_compiled, only, unwrapped


class StudentHook:
    "A hook of a callback; in a copy of the module it does nothing, and holds no callback or teacher."

    def __init__(
        self,
        call: Callable,  # Any hook
    ):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)

    def __reduce__(self):
        return getattr, (nullcontext(), '__exit__')  # takes all, returns None, and is loaded without kdfast


class Features:
    """The outputs of the student's layers in its last forward pass of a batch.

    Copies that callbacks make of the student between two passes have no hooks. Those of a compiled student stay until
    `leave`, because it is compiled again for them.
    """

    def __init__(
        self,
        model: nn.Module,  # The student, possibly wrapped
        layers: list[str],  # Names, in `unwrapped(model)`
        active: Callable,  # Whether to capture outputs at this moment
    ):
        self.model, self.active, self.compiled = model, active, is_compiled(model)
        self.layers, self.outputs = layers, {name: [] for name in layers}
        self.with_graph = {}  # by layer, whether autograd was recording
        self.hooks = []
        self.warned = False

    def begin(self):
        "Capture outputs from now on."
        if self.hooks:
            return
        if self.compiled:
            torch.compiler.reset()
        student = unwrapped(self.model)
        for name in self.outputs:
            hook = StudentHook(lambda module, inputs, output, name=name: self.capture(name, output))
            self.hooks.append(student.get_submodule(name).register_forward_hook(hook))
        self.hooks.append(self.model.register_forward_pre_hook(StudentHook(lambda model, inputs: self.clear())))

    def capture(
        self,
        name: str,  # Of a layer
        output: object,  # That it has computed
    ):
        "Keep an output, as a copy: a later layer may overwrite it in place."
        if self.active():
            self.outputs[name].append(copied(output, name))
            self.with_graph[name] = torch.is_grad_enabled()

    def clear(self):
        "Keep only the last forward pass."
        if self.active():
            for outputs in self.outputs.values():
                outputs.clear()

    def end(self):
        "Remove the hooks after the forward pass."
        if not self.compiled:
            self.remove()

    def remove(self):
        "Remove the hooks."
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def leave(self):
        "Remove the hooks, also those of a compiled student."
        if self.hooks and self.compiled:
            torch.compiler.reset()
        self.remove()

    def __call__(
        self,
        learning: bool,  # Whether the student learns from the outputs
    ) -> list[Tensor]:  # Of the layers
        "Return the outputs. Raises KdfastError unless each layer has computed once, and for one without gradient."
        found = [only(self.outputs[name], name, 'student') for name in self.layers]
        for name, output in zip(self.layers, found):
            if learning and not output.requires_grad:
                self.report(name)
        return found

    def report(
        self,
        name: str,  # Of a layer whose output has no gradient
    ):
        "Raise KdfastError if autograd was not recording; else warn, once, that the layers are frozen."
        if not self.with_graph[name]:
            raise KdfastError(
                f'the student computes its layer {name} without gradient, as with torch.no_grad or in '
                'torch.utils.checkpoint with use_reentrant=True, so that no loss there can train it: set '
                'use_reentrant=False, or choose another layer'
            )
        if not self.warned:
            warnings.warn(
                f'no weight of the student up to its layer {name} trains, so that Match has no effect there: unfreeze '
                'some, or choose a later layer',
                stacklevel=2,
            )
        self.warned = True
