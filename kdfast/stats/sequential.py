"""Keep the error rate of a study that is looked at several times: declared looks share the 5 %.

Whoever looks at a fixed-n interval again and again, and stops when it decides, is wrong more often than it promises:
14 % instead of 5 % with five looks (Armitage, McPherson & Rowe 1969, https://doi.org/10.2307/2343787). Here every look
has an interval of higher confidence. The errors of the looks, and of the recipes that are compared with one baseline,
add up to 5 % at most (union bound), whatever depends on what and whenever the study ends. Look k spends the share of
the 5 % that its new seeds are of all seeds (linear spending: Lan & DeMets 1983, https://doi.org/10.1093/biomet/70.3.659).
Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kdfast.core.errors import KdfastError
from kdfast.stats.intervals import CONFIDENCE, MARGIN, Difference, over_seeds

LOOKS = 3, 5, 8, 12, 20
MOST_LOOKS = 50


@dataclass(frozen=True)
class Design:
    """Numbers of seeds at which a study is looked at, declared before its first run.

    Raises KdfastError for looks that do not increase, or begin below two seeds.
    """

    looks: tuple[int, ...] = LOOKS  # Seeds at each look
    comparisons: int = 1  # Recipes that are compared with the baseline

    def __post_init__(self):
        looks = self.looks
        rising = looks and looks[0] >= 2 and all(a < b for a, b in pairwise(looks))
        if not rising or len(looks) > MOST_LOOKS:
            raise KdfastError(
                f'looks {",".join(map(str, looks)) or "none"}: expected numbers of seeds that increase, 2 or more, '
                'such as 3,5,8,12,20'
            )
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
        "Return the share of wrong verdicts that one comparison may have at this look."
        before = max((n for n in self.looks if n < look), default=0)
        return (1 - CONFIDENCE) * (look - before) / self.last / self.comparisons

    def confidence(
        self,
        look: int,  # One of `looks`
    ) -> float:
        "Return the confidence of the intervals at this look."
        return 1 - self.alpha(look)

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
