import random

import numpy as np
import pytest

from kdfast.data.arrays import Rows
from kdfast.data.dataset import center_crop

WHOLE = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
CHOSEN = np.array([7, 2, 3, 8, 0])


INDICES = [
    0,
    -1,
    slice(1, 4),
    slice(None),
    [3, 0],
    np.array([4, 4]),
    np.array([], int),
    np.arange(5) % 2 == 0,
    ...,
    (slice(1, 4), 2),
    (..., 1),
    (0, ..., 1),
    (..., slice(1, 3), slice(0, 2), slice(None)),
    ([2, 1], slice(2, 4)),
    (2, 3, 4, 1),
    (slice(None), slice(None), 3),
    (np.array([1, 3]), ..., 0),
]


@pytest.mark.parametrize('index', INDICES)
def test_rows_index_like_the_selected_array(index):
    rows, plain = Rows(WHOLE, CHOSEN), WHOLE[CHOSEN]
    assert rows.shape == plain.shape and len(rows) == 5
    assert rows[index].shape == plain[index].shape and (rows[index] == plain[index]).all()


def test_center_crop_of_rows():
    assert (center_crop(Rows(WHOLE, CHOSEN), 4) == center_crop(WHOLE[CHOSEN], 4)).all()


def random_index(draw, n):
    "A random index of an axis of length n"
    return draw.choice(
        [
            draw.randrange(-n, n),
            np.int64(draw.randrange(n)),
            slice(
                draw.choice([None, *range(-n, n)]),
                draw.choice([None, *range(-n - 1, n + 2)]),
                draw.choice([None, 1, 2, -1, -2]),
            ),
            [draw.randrange(-n, n) for _ in range(3)],
            [],
            np.array([draw.random() < 0.5 for _ in range(n)]),
            [draw.random() < 0.5 for _ in range(n)],
            np.array([[draw.randrange(n) for _ in range(3)] for _ in range(2)]),
            slice(None),
            ...,
            None,
            True,
            False,
        ]
    )


def outcome(array, index):
    try:
        found = np.asarray(array[index])
    except Exception as e:
        return type(e)
    return found.shape, found.tobytes()


@pytest.mark.parametrize('seed', range(8))
def test_random_indices_behave_like_numpy(seed):
    "Including the errors"
    draw = random.Random(seed)
    for _ in range(300):
        chosen = np.array([draw.randrange(9) for _ in range(draw.randint(1, 7))])
        shape = (len(chosen), *WHOLE.shape[1:])
        index = tuple(random_index(draw, shape[min(axis, 3)]) for axis in range(draw.randint(0, 5)))
        if len(index) == 1 and draw.random() < 0.5:
            [index] = index
        if draw.random() < 0.05:
            index = np.random.default_rng(draw.randrange(99)).random(shape[: draw.randint(1, 3)]) < 0.5
        assert outcome(Rows(WHOLE, chosen), index) == outcome(WHOLE[chosen], index), index
