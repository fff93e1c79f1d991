"""States of random generators: the global ones, and those that objects hold."""

import random
from contextlib import contextmanager
from copy import deepcopy

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
):
    "Restore the states of the global random generators."
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'])
    if states['cuda']:
        torch.cuda.set_rng_state_all(states['cuda'])
    if states['mps'] is not None:
        torch.mps.set_rng_state(states['mps'])


@contextmanager
def random_states_kept():
    "Restore the states of the global random generators afterwards."
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)
