"""States of random generators: the global ones, and those that objects hold."""

import random
from collections.abc import Mapping
from contextlib import contextmanager
from copy import deepcopy
from types import MappingProxyType

import numpy as np
import torch

GENERATORS = random.Random, np.random.RandomState, np.random.Generator, torch.Generator


def copy_of_generator(
    generator: object,  # One of GENERATORS
) -> object:
    "Return a generator that draws the same numbers."
    return generator.clone_state() if isinstance(generator, torch.Generator) else deepcopy(generator)


def random_states() -> dict:  # For `set_random_states`
    "Return the states of the global random generators: Python, NumPy, PyTorch on each device."
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state(), cuda=cuda, mps=mps)


def set_random_states(
    states: dict,  # From `random_states`
    moved: Mapping[str, str] = MappingProxyType({}),  # Device in place of another, if another process saved the states
):
    "Restore the states of the global random generators, of devices that there are."
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'])
    by_device = {f'cuda:{i}': state for i, state in enumerate(states['cuda'])}
    for device in sorted(by_device, key=lambda device: device in moved):  # last, so that no other takes their place
        here = torch.device(moved.get(device, device))
        if here.type == 'cuda' and here.index < torch.cuda.device_count():
            torch.cuda.set_rng_state(by_device[device], here)
    if states['mps'] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states['mps'])


@contextmanager
def random_states_kept():
    "Restore the states of the global random generators afterwards."
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)
