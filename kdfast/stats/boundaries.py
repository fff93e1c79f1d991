"""Boundaries of Student's t for a study that is looked at several times, exact for normal values.

Let x be the differences of n seeds, less their true mean, and u = sum(x) / |x|. The direction of x is uniform on the
sphere and independent of its length, and t = u · sqrt((n − 1) / (n − u²)). One more seed turns the direction by an
angle φ whose density is proportional to cos(φ)^(n − 1), so that u becomes u · cos φ + sin φ: a Markov chain of one
dimension, whatever the standard deviation is. Its density, without the studies that earlier looks have ended, is
followed from seed to seed as a spline, as Armitage, McPherson & Rowe (1969, https://doi.org/10.2307/2343787) do for a
known deviation. Imports no torch.
"""

from functools import cache
from math import asin, atan, pi, sqrt

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import beta, stdtrit

CELLS, NODES = 200, 64  # of the splines over u; of the Gauss–Legendre quadrature over φ
WIDEST = 9  # of φ · sqrt(n) and of u, beyond which their densities are below 1e-16 of their maxima


@cache
def boundaries(
    looks: tuple[int, ...],  # Seeds at each look, increasing
    alphas: tuple[float, ...],  # Probability that |t| exceeds the boundary of each look and none before
) -> tuple[float, ...]:  # Of |t|, one for each look
    """Return the boundary of each look.

    Looks at two seeds, whose density is infinite at its ends, are not followed: the later looks count as if those had
    ended no study, which errs on the safe side.
    """
    found, density = [], None  # of u from 0 on, in the studies that no look has ended
    for before, n, alpha in zip((0, *looks), looks, alphas):
        if density is None:
            limit = float(stdtrit(n - 1, 1 - alpha / 2))
            density = first_density(u_of(limit, n), n) if n > 2 else None
        else:
            for seeds in range(before, n):
                density = with_another_seed(density, seeds)
            edge = upper_point(density, alpha)
            grid = grid_to(edge, n)
            density = CubicSpline(grid, density(grid))
            limit = edge * sqrt((n - 1) / (n - edge**2))
        found.append(limit)
    return tuple(found)


def u_of(
    t: float,  # Of Student's t
    n: int,  # Seeds
) -> float:
    "Return the u at which Student's t has a value."
    return t * sqrt(n / (n - 1 + t**2))


def grid_to(
    edge: float,  # Largest u
    n: int,  # Seeds
) -> np.ndarray:  # (CELLS + 1,)
    "Return values of u from 0 up to WIDEST, denser near sqrt(n), where t becomes infinite."
    return sqrt(n) * np.sin(np.linspace(0, asin(min(edge, WIDEST) / sqrt(n)), CELLS + 1))


def first_density(
    edge: float,  # Largest u that ends no study
    n: int,  # Seeds, at least 3
) -> CubicSpline:
    "Return the density of u before any look: that of a coordinate on the sphere."
    grid = grid_to(edge, n)
    return CubicSpline(grid, (1 - grid**2 / n) ** ((n - 3) / 2) / (sqrt(n) * beta(0.5, (n - 1) / 2)))


def with_another_seed(
    density: CubicSpline,  # Of u, from 0 to the largest
    n: int,  # Seeds
) -> CubicSpline:  # For one more seed
    "Return the density of u · cos φ + sin φ, integrated over the φ for which u has a density."
    edge = density.x[-1]
    after = grid_to(sqrt(1 + edge**2), n + 1)[:, None]
    turn, reach = np.arcsin((after / sqrt(1 + edge**2)).clip(max=1)), atan(edge)
    most = min(pi / 2, WIDEST / sqrt(n))
    low, high = np.maximum(turn - reach, -most), np.minimum(np.minimum(turn + reach, pi - turn - reach), most)
    high = np.maximum(low, high)
    nodes, weights = leggauss(NODES)
    angles = (low + high) / 2 + (high - low) / 2 * nodes
    cosines = np.cos(angles)
    before = density(abs(after - np.sin(angles)) / cosines)
    values = before * cosines ** (n - 2) / beta(0.5, n / 2)
    return CubicSpline(after[:, 0], (values * weights).sum(1) * (high - low)[:, 0] / 2)


def upper_point(
    density: CubicSpline,  # Of u, from 0 to the largest
    alpha: float,  # Probability
) -> float:
    "Return the u that |u| exceeds with a probability."
    below, edge = density.antiderivative(), density.x[-1]
    return float(brentq(lambda u: 2 * (below(edge) - below(u)) - alpha, 0, edge))
