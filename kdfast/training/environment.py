"""Versions, device and machine that a run was trained with."""

import os
import platform
from importlib.metadata import version

import torch
from fastai.torch_core import default_device

from kdfast.core import distributed
from kdfast.training.devices import device_name

PACKAGES = 'kdfast', 'fastai', 'torch', 'torchvision', 'numpy'


def environment() -> dict:  # Saved in run.json
    "Return versions, device, machine, threads and processes of this process."
    return dict(
        versions=dict(python=platform.python_version(), **{name: version(name) for name in PACKAGES}),
        device=device_name(default_device()),
        machine=f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores',
        threads=torch.get_num_threads(),
        processes=distributed.size,
    )
