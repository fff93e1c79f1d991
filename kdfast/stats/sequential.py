"""Keep the error rate of a study that is looked at several times: declared looks share the 5 %.

Whoever looks at a fixed-n interval again and again, and stops when it decides, is wrong more often than it promises:
14 % instead of 5 % with five looks (Armitage, McPherson & Rowe 1969, https://doi.org/10.2307/2343787). Here every look
has an interval of higher confidence. Look k may end as many studies wrongly as its new seeds are of all seeds (linear
spending: Lan & DeMets 1983, https://doi.org/10.1093/biomet/70.3.659), so that all looks together do so in 5 % of
studies; the boundaries are exact for normal values (`kdfast.stats.boundaries`). Recipes that are compared with one
baseline share the 5 % equally, whatever depends on what (Bonferroni). Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy.special import stdtr

from kdfast.core.errors import KdfastError
from kdfast.stats.boundaries import boundaries
from kdfast.stats.intervals import CONFIDENCE, MARGIN, Difference, over_seeds

LOOKS = 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20
MOST_LOOKS, MOST_SEEDS = 50, 1000  # the boundaries of more seeds take long, and lose digits
ROUNDING = 1e-6  # of a confidence


@dataclass(frozen=True)
class Design:
    """Numbers of seeds at which a study is looked at, declared before its first run.

    Raises KdfastError for looks that do not increase, or are not within 2 and MOST_SEEDS, and for too many.
    """

    looks: tuple[int, ...] = LOOKS  # Seeds at each look
    comparisons: int = 1  # Recipes that are compared with the baseline
    declared: tuple[float, ...] = ()  # Confidence of the intervals at each look, if it was written down before

    def __post_init__(self):
        looks = self.looks
        rising = looks and 2 <= looks[0] and looks[-1] <= MOST_SEEDS and all(a < b for a, b in pairwise(looks))
        if not rising or len(looks) > MOST_LOOKS:
            raise KdfastError(
                f'looks {",".join(map(str, looks)) or "none"}: expected up to {MOST_LOOKS} numbers of seeds that '
                f'increase, from 2 to {MOST_SEEDS:,}, such as 5,10,20'
            )
        if self.declared and len(self.declared) != len(looks):
            raise KdfastError(f'{len(self.declared)} confidences for {len(looks)} looks: expected one for each look')
        if not all(CONFIDENCE - ROUNDING <= confidence < 1 for confidence in self.declared):
            raise KdfastError(f'confidences {self.declared}: expected {CONFIDENCE} to below 1')
        if self.comparisons < 1:
            raise KdfastError('a design needs a recipe to compare with the baseline')

    @property
    def last(self) -> int:
        "Seeds at the last look."
        return self.looks[-1]

    def alpha(
        self,
        look: int,  # One of `looks`
    ) -> float:
        "Return the share of studies that one comparison may end wrongly at this look."
        before = max((n for n in self.looks if n < look), default=0)
        return (1 - CONFIDENCE) * (look - before) / self.last / self.comparisons

    @property
    def confidences(self) -> tuple[float, ...]:
        "Confidence that an interval of each look would have as the only one."
        if self.declared:
            return self.declared
        limits = boundaries(self.looks, tuple(map(self.alpha, self.looks)))
        return tuple(float(1 - 2 * stdtr(n - 1, -limit)) for n, limit in zip(self.looks, limits))

    def confidence(
        self,
        look: int,  # One of `looks`
    ) -> float:
        "Return the confidence of the intervals at this look."
        return self.confidences[self.looks.index(look)]

    def reached(
        self,
        n: int,  # Seeds that are finished
    ) -> list[int]:
        "Return the looks that so many seeds allow."
        return [look for look in self.looks if look <= n]

    def following(
        self,
        n: int,  # Seeds that are finished
    ) -> int | None:
        "Return the number of seeds at the next look; None after the last one."
        return next((look for look in self.looks if look > n), None)


def by_union_bound(
    looks: tuple[int, ...],  # Seeds at each look
    comparisons: int,  # Recipes that are compared with the baseline
) -> tuple[float, ...]:
    "Return the confidence at each look of designs that do not record it: each look is paid for alone."
    design = Design(looks, comparisons)
    return tuple(1 - design.alpha(look) for look in looks)


def decide(
    design: Design,  # Looks of the study, and their confidence
    values: Sequence[float],  # A paired difference a seed, in the order of the seeds
    step: float = 0.0,  # By how much one image moves a value, as in `over_seeds`
    margin: float = MARGIN,  # Smallest difference that matters
) -> Difference | None:
    """Return the difference at the first look that decides, else at the last look reached.

    None before the first look. A decision stands, whatever later seeds give. Seeds after the last look are not used.
    """
    found = None
    for look in design.reached(len(values)):
        found = over_seeds(values[:look], step, design.confidence(look))
        if found.verdict(margin) != 'undecided':
            break
    return found
