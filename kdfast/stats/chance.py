"Are predictions better than chance? Imports no torch."

import math

import numpy as np

CHANCE_Z = 2.33  # one-sided 1 %


def above_chance(
    matrix: np.ndarray,  # (classes, classes) counts: rows are actual, columns predicted
) -> bool:
    """Return whether predictions depend on the classes, at a one-sided level of 1 %.

    The statistic is the macro recall, whose expectation without any dependence is 1 / classes, whatever the shares of
    the classes and of the predictions are.
    """
    n = matrix.sum(1)
    present = n > 0
    recall = (matrix.diagonal()[present] / n[present]).mean()
    share = (matrix.sum(0) / matrix.sum())[present]
    k = present.sum()
    sd = math.sqrt((share * (1 - share) / n[present]).sum()) / k
    return bool(recall - share.mean() > CHANCE_Z * sd)
