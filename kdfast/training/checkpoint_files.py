"""Checkpoint files: names, format, damage."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from kdfast.data.device_transfer import as_bytes

FORMAT = '4'  # of checkpoints; files with another format are ignored
END = 'end'  # replaces epoch and step in a file name: the state at the end of a fit, before its after_fit
DURING = '[0-9]*-[0-9]*'  # pattern of epoch and step in file names


@dataclass
class Place:
    "A checkpoint file and its position in the fit."

    file: Path
    epoch: int | None = None  # None: the end of the fit
    step: int = 0

    @property
    def has_format(self) -> bool:
        "Whether this version of kdfast has written it, or could have."
        return format_of(self.file) == FORMAT


def content_of(
    about: dict,  # For JSON
    tensors: dict[str, torch.Tensor],  # Perhaps with memory in common
) -> bytes:
    "Return the content of a checkpoint. Tensors are copied to the CPU: a GPU may have no room."
    copies = {name: t.detach().to('cpu', copy=True) for name, t in tensors.items()}
    copies['about'] = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
    return safetensors.torch.save(copies, dict(format=FORMAT))


def read_content(
    file: Path,  # A checkpoint
) -> tuple[dict, dict[str, torch.Tensor]]:
    "Return what `content_of` was given."
    tensors = safetensors.torch.load(file.read_bytes())
    return json.loads(tensors.pop('about').numpy().tobytes()), tensors


def problem_of(
    file: Path,  # A checkpoint
) -> str:
    "Return why a checkpoint cannot be used, or an empty string."
    if hashlib.sha256(file.read_bytes()).hexdigest() != file.stem.split('-')[-1]:
        return 'is damaged'
    found = format_of(file)
    return '' if found == FORMAT else f'has format {found}, this version of kdfast reads {FORMAT}'


def format_of(
    file: Path,  # Any file
) -> str | None:
    "Return the format of a checkpoint, or None for other files."
    try:
        with safe_open(file, 'pt') as f:
            return (f.metadata() or {}).get('format', '1')
    except SafetensorError:
        return None


def model_digest(
    model: torch.nn.Module,  # Any model
) -> str:
    "Return the SHA-256 of a model's weights."
    sha256 = hashlib.sha256()
    for tensor in model.state_dict().values():
        # A copy: PyTorch forbids to resize what an array of NumPy shares, as observers of quantization do
        sha256.update(as_bytes(tensor.detach().cpu().clone()).numpy())
    return sha256.hexdigest()
