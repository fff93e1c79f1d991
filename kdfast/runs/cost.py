"What a run costs: seconds, and bytes on the disk. Imports no torch."

from dataclasses import dataclass


@dataclass(frozen=True)
class RunCost:
    "What one run costs, without the runs that it needs."

    seconds: float  # From the start of its process to its end
    kept: int = 0  # Bytes of weights, predictions and cached outputs
    while_trained: int = 0  # Bytes of its checkpoints, until it is finished
