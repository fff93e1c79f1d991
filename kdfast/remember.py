"The teacher's outputs, computed once: recipes of one seed show it the same batches, so the second need not ask it again."
import hashlib
import io
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from fastai.basics import Callback
from filelock import FileLock
from torch import nn

from kdfast.distill import Distill
from kdfast.errors import KdfastError
from kdfast.match import Match
from kdfast.runs import remove_half_written, write

LIMIT = 2**30 # bytes: beyond it, asking again is cheaper than keeping


class Remember(Callback):
    """Look up what the teacher says of a batch that it has seen before, for Distill, and for Match where it compares logits.

    A batch is known by the SHA-256 of its pixels, so that whatever changes the images (MixUp, another
    augmentation) is simply not found, and the weights come out equal to the bit with and without. For a CPU,
    where the teacher costs far more than the digest; elsewhere it does nothing.
    """
    remove_on_fetch = True

    def __init__(self,
        file:Path, # Where the outputs are kept
        teacher:nn.Module, # Whose outputs they are
    ):
        self.file,self.teacher,self.known,self.size,self.asker = file,teacher,None,0,None

    def before_fit(self):
        def asks(cb): return (isinstance(cb, Distill) or isinstance(cb, Match) and not cb.pairs) and cb.teacher is self.teacher
        self.asker = next(filter(asks, self.learn.cbs), None) if self.dls.device.type == 'cpu' else None
        if self.asker and self.known is None: self.known = read_outputs(self.file)
        self.size = sum(logits.nbytes for logits in (self.known or {}).values())
        self.new = False

    def after_pred(self):
        if not self.asker: return
        self.digest = digest(self.xb[0])
        self.asker.target = self.known.get(self.digest)

    def after_batch(self):
        if not self.asker or self.asker.target is None or self.digest in self.known or self.size > LIMIT: return
        self.known[self.digest] = self.asker.target
        self.size += self.asker.target.nbytes
        self.new = True

    def after_fit(self):
        "Keep them, and those that another process has kept meanwhile"
        if not (self.asker and self.new): return
        with FileLock(self.file.with_name('.outputs.lock')):
            remove_half_written(self.file.parent)
            write_outputs(self.file, read_outputs(self.file) | self.known)


def digest(xb):
    "SHA-256 of a batch, read as it lies in memory: channels last"
    return hashlib.sha256(xb.movedim(1, -1).contiguous().numpy()).digest()


def write_outputs(
    file:Path, # An .npz file
    known:dict, # Logits (batch, classes) by digest
):
    "Keep the outputs, whole or not at all."
    content = io.BytesIO()
    np.savez(content, digests=np.frombuffer(b''.join(known), np.uint8).reshape(-1, 32),
             sizes=[len(logits) for logits in known.values()], logits=torch.cat(list(known.values())).numpy())
    write(file, content.getbuffer())


def read_outputs(
    file:Path, # Written by `write_outputs`, or not there yet
) -> dict:
    "Logits by digest."
    if not file.exists(): return {}
    try:
        with np.load(file) as kept: digests,sizes,logits = (kept[name] for name in ('digests', 'sizes', 'logits'))
    except (ValueError, KeyError, EOFError, BadZipFile) as e: raise KdfastError(f'{file} is damaged ({e}): remove it, and the teacher is asked again') from e
    return {d.tobytes(): part for d,part in zip(digests, torch.from_numpy(logits).split(sizes.tolist()))}
