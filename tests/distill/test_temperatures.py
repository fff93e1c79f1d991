"Losses of logits are right at every temperature that is allowed: compared with 40 digits."

import mpmath
import pytest
import torch
from loss_tensors import S, Y, value_and_gradient
from mpmath import mpf

from kdfast.core.ranges import LARGEST_T, SMALLEST_T
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss
from kdfast.distill.tasks import label_kd_loss

STUDENT, TEACHER = 3 * S[:3, :4], 3 * S[3:, :4]
LABELS = Y[:3].clamp(max=3)
TEMPERATURES = [SMALLEST_T, 1e-3, 0.5, 1.0, 4.0, 20.0, 32.0, 33.0, 100.0, 1e3, 1e4, 1e5, LARGEST_T]


def mean(values):
    return mpmath.fsum(values) / len(values)


def softmax(row, T):
    powers = [mpmath.exp(x / T) for x in row]
    return [power / mpmath.fsum(powers) for power in powers]


def divergence(p, q):
    return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q))


def soft(s, t, T):
    return T**2 * mean([divergence(softmax(b, T), softmax(a, T)) for a, b in zip(s, t)])


def decoupled(s, t, T):
    both = [(softmax(b, T), softmax(a, T), int(y)) for a, b, y in zip(s, t, LABELS)]
    target = mean(
        [divergence([p[y], mpmath.fsum(without(p, y))], [q[y], mpmath.fsum(without(q, y))]) for p, q, y in both]
    )
    others = [soft([without(a, y)], [without(b, y)], T) for a, b, y in zip(s, t, map(int, LABELS))]
    return T**2 * target + 8 * mean(others)


def without(row, i):
    return row[:i] + row[i + 1 :]


def standardized(row):
    centered = [x - mean(row) for x in row]
    deviation = mpmath.sqrt(mpmath.fsum(x**2 for x in centered) / (len(row) - 1))
    return [x / deviation for x in centered]


def correlation(a, b):
    a, b = standardized(a), standardized(b)
    return mpmath.fsum(x * y for x, y in zip(a, b)) / (len(a) - 1)


def relations(s, t, T):
    q, p = ([softmax(row, T) for row in rows] for rows in (s, t))
    return (
        2
        - mean([correlation(*pair) for pair in zip(q, p)])
        - mean([correlation(*pair) for pair in zip(zip(*q), zip(*p))])
    )


def labels(s, t, T):
    pairs = [(softmax([b, mpf(0)], T), softmax([a, mpf(0)], T)) for a, b in zip(sum(s, []), sum(t, []))]
    return T**2 * mean([divergence(*pair) for pair in pairs])


LOSSES = {
    kd_loss: soft,
    label_kd_loss: labels,
    lambda s, t, T: dkd_loss(s, t, LABELS, T): decoupled,
    ls_kd_loss: lambda s, t, T: soft([*map(standardized, s)], [*map(standardized, t)], T),
    dist_loss: relations,
}


def exact(tensor):
    return [[mpf(x) for x in row] for row in tensor.tolist()]


@pytest.mark.parametrize('T', TEMPERATURES)
@pytest.mark.parametrize('loss,written', LOSSES.items(), ids=['kd', 'labels', 'dkd', 'ls', 'dist'])
@pytest.mark.parametrize('learned', [False, True])
def test_value_and_slope_are_right_at_every_temperature(loss, written, T, learned):
    if written is relations and T < 0.5:
        pytest.skip('probabilities of nearly 0 and 1 do not correlate in float32')
    temperature = torch.tensor(T) if learned else T
    value, gradient = value_and_gradient(lambda s: loss(s, TEACHER, temperature), STUDENT)
    with mpmath.workdps(40):
        expected = written(exact(STUDENT), exact(TEACHER), mpf(float(temperature)))
        step = STUDENT.sign() * 1e-3
        up, down = (written(exact(STUDENT + k * step), exact(TEACHER), mpf(float(temperature))) for k in (1, -1))
    assert value.dtype == gradient.dtype == torch.float32
    assert float(value) == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    slope = float((up - down) / 2)
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-6)
