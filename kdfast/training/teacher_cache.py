"The teacher's outputs, computed once: recipes of one seed show it the same batches, so the second need not ask it again."

import hashlib
import os
import shutil
import sys
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import nn

from kdfast.core import distributed
from kdfast.core.atomic import remove_half_written, sha256, write
from kdfast.core.errors import KdfastError
from kdfast.data.device_transfer import as_bytes
from kdfast.distill.distill import Distill
from kdfast.distill.fit import FitCallback
from kdfast.distill.match import Match

VERSION = 2  # of the copy of the teacher that computes the outputs: another one rounds otherwise
LIMIT = 2**30  # bytes on disk: beyond it, asking again is cheaper than keeping
CHUNK = 2**26  # bytes: new outputs are written, and leave memory, when they are so many


class TeacherCache(FitCallback):
    """Look up what the teacher says of a batch that it has seen before, for Distill, and for Match where it compares logits.

    Outputs are found again by all that their bits depend on: `batch_key` and `cache_key`. So weights come out equal to the bit with and
    without. A batch that another callback has changed, such as MixUp's, will not come again: it is neither looked up nor kept.
    Files are only added, each under the SHA-256 of its content; one that is damaged is removed, and the teacher computes again.
    For a CPU, where the teacher costs far more than the SHA-256 of a batch; elsewhere it does nothing.
    """

    order = (
        -4
    )  # meets the batch as it was loaded: before MixUp (0), and behind a run's Resume (-5), which skips batches

    def __init__(
        self,
        folder: Path,  # Where the outputs are kept, made when there are any
        teacher: nn.Module,  # Whose outputs they are
    ):
        self.folder, self.teacher, self.key, self.user = Path(folder), teacher, None, None
        self.known, self.files, self.new, self.size = {}, set(), {}, 0

    def before_fit(self):
        "Find who will want the teacher's outputs, and read those that are known"

        def uses(cb):
            return (isinstance(cb, Distill) or isinstance(cb, Match) and not cb.pairs) and cb.teacher is self.teacher

        self.user = (
            next(filter(uses, self.learn.cbs), None)
            if self.device.type == 'cpu' and not has_hooks(self.teacher)
            else None
        )
        if not self.user:
            return
        key = cache_key(self.teacher)
        if key != self.key:
            self.key, self.known, self.files = key, {}, set()
        self.read()

    def before_batch(self):
        self.loaded, self.batch = (self.xb[0], self.xb[0]._version), None

    def after_pred(self):
        "Look up the batch, unless another callback has changed it, or put one in its place"
        x, version = self.loaded
        same = (
            len(self.xb) == 1 and self.xb[0].data_ptr() == x.data_ptr() and self.xb[0]._version == x._version == version
        )
        if not (self.user and same):
            return
        self.batch = batch_key(self.xb[0])
        self.user.target = self.known.get(self.batch, self.new.get(self.batch))

    def after_batch(self):
        if self.batch is None or self.user.target is None or self.batch in self.known or self.batch in self.new:
            return
        self.new[self.batch] = self.user.target
        self.size += self.user.target.nbytes
        if self.size >= CHUNK:
            self.write()

    def after_fit(self):
        if self.new:
            self.write()
        self.leave()

    def leave(self):
        self.user, self.batch, self.loaded, self.new, self.size = None, None, None, {}, 0

    # Files

    def read(self):
        "Those of the key that have not been read yet"
        for file in sorted(self.folder.glob(f'{self.key}-*.safetensors')):
            if file not in self.files:
                self.known |= read_outputs(file)
            self.files.add(file)

    def write(self):
        "Add a file of what nobody has written meanwhile, where there is room, and take it from there. The first of several processes alone writes."
        if not distributed.rank and os.access(self.folder.parent, os.W_OK):
            self.folder.mkdir(exist_ok=True)
            with FileLock(self.folder.with_name(f'.{self.folder.name}.lock')):
                remove_half_written(self.folder)
                (self.folder.parent / 'outputs.npz').unlink(
                    missing_ok=True
                )  # of older versions, which knew less of what a value depends on
                self.read()
                new = {batch: logits for batch, logits in self.new.items() if batch not in self.known}
                if new and self.room(sum(logits.nbytes for logits in new.values())):
                    write_outputs(self.folder, self.key, new)
            self.read()
        self.new, self.size = {}, 0

    def room(self, n_bytes):
        "Whether so much more may be kept; what is known under other keys makes room first"
        kept = {file: file.stat().st_size for file in self.folder.glob('*.safetensors')}
        for file in (
            [file for file in kept if not file.name.startswith(self.key)]
            if sum(kept.values()) + n_bytes > LIMIT
            else []
        ):
            file.unlink()
            del kept[file]
        return sum(kept.values()) + n_bytes <= LIMIT and 2 * n_bytes < shutil.disk_usage(self.folder).free


# What outputs depend on


def has_hooks(network):
    return any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def cache_key(
    teacher: nn.Module,  # Whose outputs they are
) -> str:  # 16 hexadecimal digits
    "All that its outputs for a batch depend on: weights and structure, and how this process computes."
    process = (
        VERSION,
        torch.__version__,
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.backends.cpu.get_cpu_capability(),
        os.environ.get('ONEDNN_MAX_CPU_ISA'),
        sorted(torch.cpu.get_capabilities().items()),
    )
    key = hashlib.sha256(repr(process).encode())
    for name, module in teacher.named_modules():
        kind = type(module)
        key.update(f'{name} {kind.__module__}.{kind.__qualname__} {module.extra_repr()}\n'.encode())
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            add(key, name, tensor)
    return key.hexdigest()[:16]


def batch_key(
    x: torch.Tensor,  # A batch on the CPU
) -> bytes:
    "SHA-256 of the batch, of how it lies in memory, and of the precision in which networks compute."
    key = hashlib.sha256()
    add(key, (torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu'), x.stride()), x)
    return key.digest()


def add(key, words, tensor):
    "The words, shape, type and values; those of images as they lie in memory, channels last"
    as_it_lies = (tensor.movedim(1, -1) if tensor.dim() > 2 else tensor).detach()
    key.update(f'{words} {tuple(tensor.shape)} {tensor.dtype} '.encode())
    key.update(as_bytes(as_it_lies).cpu().numpy())


# On disk


def write_outputs(folder, key, outputs):
    "Keep logits by batch, whole or not at all."
    batches = torch.frombuffer(bytearray(b''.join(outputs)), dtype=torch.uint8).view(-1, 32)
    shapes, values = (
        torch.tensor([logits.shape for logits in outputs.values()]),
        torch.cat([logits.reshape(-1) for logits in outputs.values()]),
    )
    written = safetensors.torch.save(dict(batches=batches, shapes=shapes, logits=values))
    write(folder / f'{key}-{hashlib.sha256(written).hexdigest()}.safetensors', written)


def read_outputs(
    file: Path,  # Written by `write_outputs`
) -> dict:
    "Logits by batch, mapped from the file; none, and no file any more, where it is damaged."
    if sha256(file) != file.stem.partition('-')[2]:
        print(f'kdfast: {file} is damaged and removed; the teacher computes its outputs again', file=sys.stderr)
        file.unlink(missing_ok=True)
        return {}
    try:
        kept = safetensors.torch.load_file(file)
        shapes = [tuple(shape) for shape in kept['shapes'].tolist()]
        parts = kept['logits'].split([torch.Size(shape).numel() for shape in shapes])
        return {
            batch.numpy().tobytes(): logits.view(shape)
            for batch, logits, shape in zip(kept['batches'], parts, shapes, strict=True)
        }
    except (SafetensorError, KeyError, RuntimeError, ValueError) as e:
        raise KdfastError(f'{file} holds no outputs of a teacher ({e}): remove it') from e
