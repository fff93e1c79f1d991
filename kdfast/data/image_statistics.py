"Collect sizes, formats and ranges of values while images are decoded."

from collections import Counter

import numpy as np

from kdfast.data.bit_depth import choose_range, parse_range
from kdfast.data.layouts.base import Item
from kdfast.data.pixels import DecodedImage


class ImageStatistics:
    "Sizes, formats and ranges of values of all images of a data set."

    def __init__(self):
        self.kinds = Counter()  # formats and modes
        self.widths, self.heights = [], []
        self.deep = []  # names of images of more than 8 bits
        self.low, self.high = np.inf, -np.inf  # of their values
        self.kind = ''  # of all of them: float if any is
        self.first = None  # (name, (height, width)) of the first image; all others must have its size

    def add(
        self,
        item: Item,  # The image in its source
        image: DecodedImage,  # Its pixels
    ):
        "Count an image."
        self.kinds[image.kind] += 1
        self.widths.append(image.size[0])
        self.heights.append(image.size[1])
        if image.low is None:
            return
        self.deep.append(item.name)
        self.low = min(self.low, image.low)
        self.high = max(self.high, image.high)
        if not self.kind.endswith('float'):
            self.kind = image.kind

    def value_range(
        self,
        requested: str | None,  # LOW:HIGH, from the user
    ) -> tuple[float, float] | None:
        "Return the values that become black and white; None if all images have 8 bits."
        if requested:
            return parse_range(requested)
        return choose_range(self.low, self.high, self.kind) if self.deep else None

    def summary(self) -> dict:
        "Return formats and sizes, as data.json and `kdfast check` have them."
        return dict(
            kinds=dict(self.kinds.most_common()),
            widths=_min_median_max(self.widths),
            heights=_min_median_max(self.heights),
            shorter=int(np.median(np.minimum(self.widths, self.heights))),
        )


def _min_median_max(lengths):
    return [int(min(lengths)), int(np.median(lengths)), int(max(lengths))]
