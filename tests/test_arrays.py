import numpy as np
import pytest
from kdfast.arrays import Rows
from kdfast.data import central

WHOLE = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
CHOSEN = np.array([7, 2, 3, 8, 0])


INDICES = [0, -1, slice(1, 4), slice(None), [3, 0], np.array([4, 4]), np.array([], int), np.arange(5) % 2 == 0, ...,
           (slice(1, 4), 2), (..., 1), (0, ..., 1), (..., slice(1, 3), slice(0, 2), slice(None)), ([2, 1], slice(2, 4)),
           (2, 3, 4, 1), (slice(None), slice(None), 3), (np.array([1, 3]), ..., 0)]


@pytest.mark.parametrize('index', INDICES)
def test_rows_of_an_array_are_the_array_of_those_rows(index):
    rows,plain = Rows(WHOLE, CHOSEN),WHOLE[CHOSEN]
    assert rows.shape == plain.shape and len(rows) == 5
    assert rows[index].shape == plain[index].shape and (rows[index] == plain[index]).all()


def test_the_middle_of_rows(): assert (central(Rows(WHOLE, CHOSEN), 4) == central(WHOLE[CHOSEN], 4)).all()
