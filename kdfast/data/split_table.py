"Write where the images of one split are, instead of their pixels: to decode them in every epoch."

import numpy as np

from kdfast.data.image_table import write_table
from kdfast.data.layouts.base import Source
from kdfast.data.pixels import DecodedImage
from kdfast.data.places import WHOLE, place_of
from kdfast.data.split_writer import SplitWriter


class SplitTable(SplitWriter):
    """Writes <split>_labels.npy and the table of the images, in the order of their names.

    Images arrive in that order. Their pixels pass by once, for statistics and SHA-256.
    """

    def __init__(
        self,
        source: Source,  # Files of the data set
        *args,  # Of SplitWriter
    ):
        super().__init__(*args)
        self.source = source

    def begin(
        self,
        n_images: int,  # Of all splits
    ):
        "Do nothing: no array is created."

    def store(
        self,
        row: int,  # Of the image
        image: DecodedImage,  # Its pixels
    ):
        "Drop the pixels."

    def finish_images(
        self,
        rows: np.ndarray,  # Of the images that could be read
        value_range: tuple[float, float] | None,  # Values of black and white for images of more than 8 bits
    ):
        "Write the table of the images that could be read."
        items, self.labels = [self.items[row] for row in rows], self.labels[rows]
        names, places = [item.name for item in items], list(map(self._place, items))
        write_table(self.folder, self.split, names, places, self.digests[rows], self.source.path)

    def _place(self, item):
        "Where an image is; in a folder, its name is enough"
        place = place_of(item.open)
        known = place.packing == WHOLE and self.source.files.get(item.name) is item.open
        return place._replace(path='') if known else place

    def write_empty(
        self,
        split: str,  # train, valid or test
    ):
        "Write a split without images."
        self.summary.begin((0, *self.shape, 3), self.labels[:0])
        write_table(self.folder, split, [], [], self.digests[:0], self.source.path)
        np.save(self.folder / f'{split}_labels.npy', self.labels[:0])


def table_facts(
    train: SplitTable,  # Of the training images
    side: int | None,  # Images are scaled to squares of this side
) -> dict:
    "Return what data.json has of images that are decoded in every epoch."
    return dict(table=dict(root=str(train.source.path.resolve()), shape=list(train.shape), side=side))
