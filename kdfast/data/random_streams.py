"Random numbers that follow from a seed and a stream alone."

import numpy as np
import torch

# Streams of their own: two of CRD, and one of processes that train together
MEMORY, NEGATIVES, PROCESSES = 1, 2, 3


def generator(
    *entropy: int,  # Such as a seed, an epoch and a purpose
    stream: int | None = None,  # Separates the numbers from those of the same entropy without it
) -> torch.Generator:
    """Return a generator on the CPU whose numbers depend only on `entropy` and `stream`.

    Without a stream, trailing zeros make no difference: (3,) and (3, 0) give the same numbers.
    """
    words = np.random.SeedSequence(entropy, spawn_key=() if stream is None else (stream,))
    return torch.Generator().manual_seed(int(words.generate_state(1)[0]))
