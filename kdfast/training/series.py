"""Lists of numbers that grow with every step, in a file of their own, to keep checkpoints small."""

from pathlib import Path

import numpy as np
import torch

from kdfast.core.append import AppendOnlyFile


class Series:
    "The lists of numbers of one fit, appended to a file."

    RECORD = np.dtype([('list', '<u4'), ('value', '<f8')])

    def __init__(
        self,
        file: Path,  # Created with the first numbers
    ):
        self.file = AppendOnlyFile(file)
        self.known = {}  # number of the list, values added, and the list itself, by id of the list
        self.read = {}  # values read from the file, by number of the list

    def keep(
        self,
        numbers: list,  # That has grown since the last call
    ) -> dict | None:  # None for anything but a list of numbers
        "Return the state of a list for a checkpoint; its new values are written by `state`."
        n, written, _ = self.known.get(id(numbers), (len(self.known), 0, None))
        new = list(numbers)[written:] if len(numbers) >= written else None
        if new is None or not all(map(is_number, new)):
            return None
        self.known[id(numbers)] = n, len(numbers), numbers  # keeps the list alive: no other list gets its id
        self.file.add(np.array([(n, float(x)) for x in new], self.RECORD).tobytes())
        dtype = str(numbers[0].dtype) if len(numbers) and isinstance(numbers[0], torch.Tensor) else None
        return dict(n=n, length=len(numbers), dtype=dtype)

    def state(self):
        "Write new values; return the state of the file."
        return self.file.state()

    def restore(
        self,
        state,  # From `state`
    ):
        "Read the values that the file had in that state."
        records = np.frombuffer(self.file.restore(state), self.RECORD)
        self.read = {int(n): records['value'][records['list'] == n] for n in np.unique(records['list'])}

    def values(
        self,
        kept: dict,  # From `keep`
        numbers: list,  # The list that continues from here
    ) -> list:
        "Return the saved values of a list."
        values = self.read.get(kept['n'], np.array([]))[: kept['length']].tolist()
        self.known[id(numbers)] = kept['n'], kept['length'], numbers
        if not kept['dtype']:
            return values
        dtype = getattr(torch, kept['dtype'].removeprefix('torch.'))
        return [torch.tensor(x, dtype=dtype) for x in values]


def is_number(
    x,  # Any value
) -> bool:
    "Return whether a value is a number or a scalar tensor."
    return isinstance(x, float | int | np.number) or isinstance(x, torch.Tensor) and x.dim() == 0
