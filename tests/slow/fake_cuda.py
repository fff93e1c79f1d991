"""Run each recipe's training steps on a simulated GPU: `python tests/slow/fake_cuda.py [RECIPE …]`.

Tensors on `cuda` have shapes, types and a device, but no values; those on the CPU are real. Errors of a GPU, such as
tensors on different devices, appear here, and copies between the devices are counted. Autocast has no effect: PyTorch
does not treat such tensors as a GPU's. A recipe passes if its steps run, with images in GPU memory and without, and
never wait for the GPU.
"""

import contextlib
import os
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import torch
import torch._dynamo  # before what it looks at is patched
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

CUDA, CPU = torch.device('cuda', 0), torch.device('cpu')
STEPS = 4  # of each fit
WAITS = {
    '_local_scalar_dense',
    'nonzero',
    'masked_select',
    'equal',
    'unique',
    '_unique2',
    'unique_dim',
    'unique_consecutive',
    'bincount',
    'histc',
    'repeat_interleave',
    'allclose',
}  # the host needs a value of theirs
RECORDED = (
    'kdfast/training/metrics_log.py',
    'fastai/torch_core.py',
)  # what waits for losses is counted apart: once in many steps is allowed


class Fake(FakeTensorMode):
    "Where PyTorch itself asks for the device of a fake tensor, it is told `meta`, see `as_meta`"

    def dispatch(self, func, types, args=(), kwargs=None):
        if kwargs and kwargs.get('device') is not None and torch.device(kwargs['device']).type == 'meta':
            kwargs = kwargs | dict(device=CUDA)
        return super().dispatch(func, types, args, kwargs)


class FakeCuda(TorchDispatchMode):
    "Compute on `cuda` with fake tensors; `seen` counts copies between the devices, by kind and place in the code."

    def __init__(self):
        super().__init__()
        self.fake, self.seen, self.pinned = Fake(allow_non_fake_inputs=True), Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func._schema.name.partition('::')[2]
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        there = [t for t in tensors if isinstance(t, FakeTensor)]
        device = torch.device(kwargs['device']) if kwargs.get('device') is not None else None
        if device and device.type == 'meta':
            device = CUDA  # see `as_meta`
        if not there and (device is None or device.type == 'cpu'):
            return self.on_the_cpu(func, args, kwargs)
        if name in WAITS or name.startswith('index') and any(t.dtype == torch.bool for t in there if t is not args[0]):
            self.note('wait')
        if name == '_local_scalar_dense':
            return {torch.bool: True}.get(args[0].dtype, 1 if not args[0].is_floating_point() else 0.5)
        if name == '_to_copy' and there and device == CPU:
            self.note('wait')
            return torch.ones_like(self.fake_of(func, args, kwargs), device='cpu')
        if name == 'copy_' and not isinstance(args[0], FakeTensor):
            self.note('wait')
            return args[0]
        if self.carries(name, args, there, tensors):
            self.note('copy' if self.is_pinned(tensors, args, kwargs) else 'waiting copy')
        return self.fake_of(func, args, kwargs)

    @contextlib.contextmanager
    def installed(self):
        "From here on, `cuda` is this one"
        if torch.cuda.is_available():
            torch.cuda.init()  # which is left out below
        patches = (
            patch('torch.cuda._lazy_init', lambda: None),
            patch.object(torch.nn.Module, '_apply', moved),
            patch.object(torch.Tensor, 'as_subclass', plain),
            patch.object(torch.Tensor, '_make_subclass', as_meta),
        )
        with contextlib.ExitStack() as stack:
            for part in (*patches, self):
                stack.enter_context(part)
            yield self

    def fake_of(self, func, args, kwargs):
        with self.fake:
            return func(*args, **kwargs)

    def on_the_cpu(self, func, args, kwargs):
        pin = kwargs.pop('pin_memory', None)  # there is none without a GPU
        made = func(*args, **kwargs)
        if pin:
            self.pinned.append(made)
        return made

    def carries(self, name, args, there, tensors):
        "Whether values of the CPU's go to the GPU: by a copy, or as the indices of what is there"
        here = [t for t in tensors if not isinstance(t, FakeTensor)]
        if name == '_to_copy':
            return bool(here)
        if name == 'copy_':
            return isinstance(args[0], FakeTensor) and bool(here)
        return name.startswith('index') and any(t.dim() for t in here)

    def is_pinned(self, tensors, args, kwargs):
        "Whether nothing waits for the copy"
        asynchronous = kwargs.get('non_blocking') or len(args) > 2 and args[2]
        return bool(asynchronous) and any(
            t.data_ptr() == p.data_ptr() for t in tensors if not isinstance(t, FakeTensor) for p in self.pinned
        )

    def note(self, kind):
        stack = traceback.extract_stack()[:-2]
        frames = [
            f for f in stack if any(part in f.filename for part in ('/kdfast/', '/recipes/', '/fastai/'))
        ] or stack
        file = Path(frames[-1].filename)
        self.seen[kind, f'{file.parent.name}/{file.name}:{frames[-1].lineno}'] += 1


def moved(module, fn, recurse=True):
    "nn.Module._apply, which exchanges the contents of tensors; fake ones cannot be exchanged"
    for child in module.children() if recurse else ():
        child._apply(fn)
    for own, kind in (module._parameters, torch.nn.Parameter), (module._buffers, lambda t, _: t):
        for name, t in own.items():
            if (
                t is not None
                and (to := fn(t.detach())).device != t.device
                or t is not None
                and to.stride() != t.stride()
            ):
                own[name] = kind(to, t.requires_grad)
    return module


def plain(tensor, kind):
    "Tensor.as_subclass, which fake tensors have not"
    return tensor if isinstance(tensor, FakeTensor) else as_subclass(tensor, kind)


def as_meta(cls, *args, **kwargs):
    "Tensor._make_subclass: to autograd, which would look for the GPU, fake tensors lie on no device"
    return make_subclass(cls, *args, **kwargs | (dict(dispatch_device=False) if issubclass(cls, FakeTensor) else {}))


as_subclass, make_subclass = torch.Tensor.as_subclass, torch.Tensor._make_subclass


def normalized(dl):
    "What a kdfast loader does to a batch, chosen by hand: fastai chooses by the kind of tensor"
    to_float, normalize = dl.after_batch.fs
    return lambda b: ((b[0].float().div_(to_float.div) - normalize.mean) / normalize.std, *b[1:])


@contextlib.contextmanager
def fake_device(free, precision):
    "Train on the fake GPU with so many free bytes; the runs that a run depends on are not trained."
    from kdfast.training.run import Run

    def needs(run, needed, **given):
        student = given.get('student', 'thin')
        teacher = given.get('teacher', given.get('network', 'wide'))
        return run.build(teacher if needed == 'teacher' else student)  # on the CPU until it is used

    with contextlib.ExitStack() as stack:
        for target, value in (
            ('kdfast.data.dataloaders.default_device', lambda *_: CUDA),
            ('torch.cuda.mem_get_info', lambda *_: (free, free)),
            ('fastai.torch_core.default_device', lambda *_: CUDA),
        ):
            stack.enter_context(patch(target, value))
        stack.enter_context(patch.object(Run, 'needs', needs))
        stack.enter_context(patch.object(Run, 'precision', precision))
        yield


def count_steps(gpu, counts):
    "Return a callback that adds what the GPU has seen to `counts` after each of STEPS training steps."
    from fastai.basics import Callback, CancelFitException

    class Look(Callback):
        order, step = 1000, 0

        def after_batch(self):
            if not self.training:
                return
            counts.append(Counter(gpu.seen))
            if len(counts) == STEPS:
                raise CancelFitException

    return Look()


def steps(
    name: str,  # Recipe
    optimizer: str = 'sgd',  # Optimizer
    precision: str = 'bfloat16',  # Of training steps
    free: int = 2**36,  # Free bytes of the GPU's memory; with few, the images stay on the CPU
) -> list[Counter]:  # Of each step but the first: copies between the devices, by kind and place
    "Train a few steps of a recipe on the fake GPU, with new networks."
    from kdfast.data import load
    from kdfast.runs.recipes import find_recipe
    from kdfast.runs.run_dir import RunDir
    from kdfast.training.run import Run

    gpu, counts = FakeCuda(), []
    with tempfile.TemporaryDirectory() as home, fake_device(free, precision):
        home = Path(home)
        recipe = find_recipe(name)
        watch = (lambda _: count_steps(gpu, counts),)
        run = Run(RunDir(home / 'run' / name / '0'), load('digits'), 0, home, watch)
        run.folder.path.mkdir(parents=True)
        run.folder.record = dict(stands_on={})
        with gpu.installed():
            for dl in run.dls.loaders:
                dl.after_batch = normalized(dl)
            arguments = {o.name: o.default for o in recipe.options} | dict(epochs=1, optimizer=optimizer)
            recipe.main()(run, **arguments)
    if len(counts) < STEPS:
        raise AssertionError(f'{name} took {len(counts)} steps on the GPU, expected {STEPS}')
    return [now - before for before, now in zip(counts, counts[1:])]


def summary(counts):
    "Return the largest count of any step: waits, waits elsewhere, copies that are waited for, other copies."

    def most(kind, where=lambda place: True):
        return max(sum(n for (k, place), n in step.items() if k == kind and where(place)) for step in counts)

    def recorded(place):
        return place.startswith(RECORDED)

    return dict(
        waits=most('wait', lambda place: not recorded(place)),
        recorded=most('wait', recorded),
        waiting=most('waiting copy'),
        copies=most('copy'),
    )


def main(names):
    from kdfast.runs.recipes import recipe_names

    passed = 0
    names = names or recipe_names()
    for name in names:
        try:
            counts = steps(name) + steps(name, 'muon', 'float32', free=0)
        except Exception as e:
            print(f'{name:10} {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ""}')
            if os.environ.get('VERBOSE'):
                traceback.print_exc()
            continue
        found = summary(counts)
        passed += not found['waits'] + found['waiting']
        places = sorted({f'{kind} {place}' for step in counts for kind, place in step})
        print(
            f'{name:10} in a step: waits for the GPU {found["waits"]} (record {found["recorded"]}), '
            f'copies to it {found["copies"]}, waiting {found["waiting"]}; ' + ', '.join(places),
            flush=True,
        )
    print(f'fake_cuda {passed}/{len(names)}')
    return passed == len(names)


if __name__ == '__main__':
    sys.exit(not main(sys.argv[1:]))
