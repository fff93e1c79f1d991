"""Cache the teacher's outputs: recipes with one seed train on the same batches and share them."""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import nn

from kdfast.core import distributed
from kdfast.core.atomic import remove_half_written, sha256, write
from kdfast.core.errors import KdfastError
from kdfast.core.notes import say
from kdfast.data.device_transfer import as_bytes
from kdfast.distill.distill import Distill
from kdfast.distill.fit import FitCallback
from kdfast.distill.match import Match
from kdfast.models.float32_precision import float32_precisions
from kdfast.models.held import Watch

VERSION = 2  # of the teacher's inference copy, whose rounding determines the outputs
LIMIT = 2**30  # bytes on disk
CHUNK = 2**26  # bytes of new outputs in memory at which they are written to disk


class TeacherCache(FitCallback):
    """Cache the teacher's outputs by batch, for Distill, and for Match if it compares logits.

    The key contains everything that the bits of an output depend on (`batch_key`, `cache_key`), so weights are
    identical with and without the cache. A batch that another callback has changed, such as MixUp, does not occur
    again; it is not cached. From the batch on at which a teacher has changed, the cache is not used.

    Files are only added, named by the SHA-256 of their content. A damaged file is deleted; its outputs, and those of a
    file that vanishes at any moment or cannot be read, are computed again.

    Only used on CPUs, where the teacher costs far more than the SHA-256 of a batch.
    """

    order = -4  # before MixUp (0): it gets the batch as it was loaded

    def __init__(
        self,
        folder: Path,  # Directory of the cache, created when there are outputs
        teacher: nn.Module,  # Teacher whose outputs are cached
    ):
        self.folder = Path(folder)
        self.teacher = teacher
        self.key = None  # of the teacher
        self.user = None  # callback that uses the outputs
        self.watch = None  # the teacher when the fit began
        self.known = {}  # outputs from files, by key of the batch
        self.files = set()  # files that were read
        self.new = {}  # outputs that are not written yet, by key of the batch
        self.size = 0  # bytes of `new`

    def before_fit(self):
        "Find the callback that uses the teacher's outputs, and read the cached ones."
        cacheable = self.device.type == 'cpu' and not has_hooks(self.teacher)
        self.user = next(filter(self.uses_logits, self.learn.cbs), None) if cacheable else None
        if not self.user:
            return
        self.watch = Watch(self.teacher)
        key = cache_key(self.teacher)
        if key != self.key:
            self.key = key
            self.known = {}
            self.files = set()
        self.read()

    def uses_logits(
        self,
        cb,  # Any callback
    ):
        "Return whether a callback uses the logits of this teacher."
        return (isinstance(cb, Distill) or isinstance(cb, Match) and not cb.pairs) and cb.teacher is self.teacher

    def before_batch(self):
        self.loaded = self.xb[0], self.xb[0]._version
        self.batch = None

    def before_pred(self):
        "Look up the batch, unless another callback has changed or replaced it, or the teacher."
        if self.user and not self.watch.same:
            self.user = None
        x, version = self.loaded
        unchanged = self.xb[0].data_ptr() == x.data_ptr() and self.xb[0]._version == x._version == version
        if not (self.user and len(self.xb) == 1 and unchanged):
            return
        self.batch = batch_key(self.xb[0])
        self.user.target = self.known.get(self.batch, self.new.get(self.batch))

    def after_batch(self):
        "Add the outputs of the batch."
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
        "Forget the fit and outputs that are not saved."
        self.user = self.watch = None
        self.batch = None
        self.loaded = None
        self.new = {}
        self.size = 0

    # Files

    def read(self):
        "Read the files with this key that were not read before."
        for file in sorted(self.folder.glob(f'{self.key}-*.safetensors')):
            if file not in self.files:
                self.known |= read_outputs(file)
            self.files.add(file)

    def write(self):
        "Write new outputs that no other run has written, if there is room; in the first process only."
        if not distributed.rank and os.access(self.folder.parent, os.W_OK):
            with suppress(FileNotFoundError):  # the directory of the teacher's run was deleted meanwhile
                self.write_new()
        self.new, self.size = {}, 0

    def write_new(self):
        "Write new outputs that no other run has written, if there is room."
        self.folder.mkdir(exist_ok=True)
        with FileLock(self.folder.with_name(f'.{self.folder.name}.lock')):
            remove_half_written(self.folder)
            old = self.folder.parent / 'outputs.npz'  # of older versions, whose keys were incomplete
            old.unlink(missing_ok=True)
            self.read()
            new = {batch: logits for batch, logits in self.new.items() if batch not in self.known}
            if new and self.has_room(sum(logits.nbytes for logits in new.values())):
                write_outputs(self.folder, self.key, new)
        self.read()

    def has_room(
        self,
        n_bytes,  # To add
    ):
        "Return whether the cache may grow by so many bytes; delete files of other keys if needed."
        sizes = {}
        for file in self.folder.glob('*.safetensors'):
            with suppress(FileNotFoundError):  # another run has deleted it
                sizes[file] = file.stat().st_size
        if sum(sizes.values()) + n_bytes > LIMIT:
            for file in [file for file in sizes if not file.name.startswith(self.key)]:
                file.unlink(missing_ok=True)
                del sizes[file]
        return sum(sizes.values()) + n_bytes <= LIMIT and 2 * n_bytes < shutil.disk_usage(self.folder).free


# Keys


def has_hooks(
    network: nn.Module,  # Any network
) -> bool:
    "Return whether a module of the network has forward hooks."
    return any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def cache_key(
    teacher: nn.Module,  # Teacher whose outputs are cached
) -> str:  # 16 hexadecimal digits
    "Return a hash of what outputs depend on beside the batch: weights, structure, process."
    process = (
        VERSION,
        torch.__version__,
        torch.get_num_threads(),
        float32_precisions(),
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
            update_hash(key, name, tensor)
    return key.hexdigest()[:16]


def batch_key(
    x: torch.Tensor,  # Batch on the CPU
) -> bytes:
    "Return the SHA-256 of a batch, its memory layout, and the precision of autocast."
    key = hashlib.sha256()
    update_hash(key, (torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu'), x.stride()), x)
    return key.digest()


def update_hash(
    key,  # Hash of hashlib
    label,  # Name or other value to add
    tensor: torch.Tensor,  # Values to add
):
    "Add label, shape, type and values of a tensor to a hash; images in channels-last order."
    values = (tensor.movedim(1, -1) if tensor.dim() > 2 else tensor).detach()
    key.update(f'{label} {tuple(tensor.shape)} {tensor.dtype} '.encode())
    key.update(as_bytes(values).cpu().numpy())


# Files


def write_outputs(
    folder: Path,  # Directory of the cache
    key: str,  # From `cache_key`
    outputs: dict[bytes, torch.Tensor],  # Logits by `batch_key`
):
    "Write logits to a new file, completely or not at all."
    batches = torch.frombuffer(bytearray(b''.join(outputs)), dtype=torch.uint8).view(-1, 32)
    shapes = torch.tensor([logits.shape for logits in outputs.values()])
    values = torch.cat([logits.reshape(-1) for logits in outputs.values()])
    content = safetensors.torch.save(dict(batches=batches, shapes=shapes, logits=values))
    write(folder / f'{key}-{hashlib.sha256(content).hexdigest()}.safetensors', content)


def is_as_written(
    file: Path,  # Of the cache; its name has the SHA-256 of its content
) -> bool:
    "Return whether a file has the content that its name says. Raises OSError if it cannot be read."
    return sha256(file) == file.stem.partition('-')[2]


def read_outputs(
    file: Path,  # From `write_outputs`
) -> dict[bytes, torch.Tensor]:  # Logits by `batch_key`, memory-mapped
    """Read a file of the cache; delete a damaged one, and skip one that has vanished or cannot be read.

    Raises KdfastError if the content is something else.
    """
    try:
        damaged = not is_as_written(file)
        content = {} if damaged else safetensors.torch.load_file(file)
    except OSError:  # another run has deleted it, to make room
        return {}
    except SafetensorError:
        damaged = not is_as_written(file)  # it has changed since; else it never was what it should be
        content = {}
    if damaged:
        say(f'{file} is damaged and was deleted; the teacher computes its outputs again')
        with suppress(OSError):  # another user's stays
            file.unlink()
        return {}
    try:
        shapes = [tuple(shape) for shape in content['shapes'].tolist()]
        parts = content['logits'].split([torch.Size(shape).numel() for shape in shapes])
        return {
            batch.numpy().tobytes(): logits.view(shape)
            for batch, logits, shape in zip(content['batches'], parts, shapes, strict=True)
        }
    except (KeyError, RuntimeError, ValueError) as e:
        raise KdfastError(f'{file} does not contain outputs of a teacher ({e}): delete it') from e
