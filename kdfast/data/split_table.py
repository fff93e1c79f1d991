"Write where the images of one split are, instead of their pixels: to decode them in every epoch."

import hashlib

import numpy as np

from kdfast.data.arrays import PixelSummary
from kdfast.data.image_table import write_table
from kdfast.data.layouts.base import Item, Source
from kdfast.data.places import WHOLE, place_of
from kdfast.data.split_writer import SplitWriter


class SplitTable(SplitWriter):
    """Writes <split>_labels.npy and the table of the images, in the order of their names.

    Images arrive in that order. Their pixels pass by once, for statistics and SHA-256.
    """

    def __init__(
        self,
        source: Source,  # Files of the data set
        summary: PixelSummary,  # Of all splits; receives every image
        split: str,  # train, valid or test
        items: list[Item],  # All images of the split, sorted by name
        *args,  # Others of SplitWriter
    ):
        super().__init__(split, items, *args)
        self.source = source
        self.items = items
        self.summary = summary
        self.in_one_pass = True  # whether the summary has received the split as it will be read
        self.digests = np.zeros((len(items), hashlib.sha256().digest_size), np.uint8)

    def begin(self, n_images):
        "Begin the summary of the split, as if all of its images could be read."
        labels = self.labels.copy()
        for row, item in enumerate(self.items):
            self.set_label(labels, row, item)
        self.summary.begin((len(self.items), *self.shape, 3), labels)

    def store(self, row, item, image):
        "Count the pixels of an image, which then are dropped."
        pixels = np.ascontiguousarray(image.pixels)
        self.digests[row] = np.frombuffer(hashlib.sha256(pixels).digest(), np.uint8)
        if image.low is None:
            self.summary.add(pixels)
        else:
            self.in_one_pass = False  # the range of values is not known yet

    def finish_images(self, value_range):
        "Write the table of the images that could be read."
        rows = self.present_rows()
        if len(rows) < len(self.items):
            self.in_one_pass = False
            self.labels, self.digests = self.labels[rows], self.digests[rows]
        items = [self.items[row] for row in rows]
        names, places = [item.name for item in items], list(map(self._place, items))
        write_table(self.folder, self.split, names, places, self.digests, self.source.path)

    def _place(self, item):
        "Where an image is; in a folder, its name is enough"
        place = place_of(item.open)
        known = place.packing == WHOLE and self.source.files.get(item.name) is item.open
        return place._replace(path='') if known else place

    def write_empty(self, split):
        "Write a split without images."
        self.summary.begin((0, *self.shape, 3), self.labels[:0])
        write_table(self.folder, split, [], [], self.digests[:0], self.source.path)
        np.save(self.folder / f'{split}_labels.npy', self.labels[:0])


def table_facts(
    writers: dict[str, SplitTable],  # By split
    side: int | None,  # Images are scaled to squares of this side
) -> dict:
    "Return what data.json has of images that are decoded in every epoch; with statistics, if one pass found them."
    train = writers['train']
    table = dict(root=str(train.source.path.resolve()), shape=list(train.shape), side=side)
    return dict(table=table) | (train.summary.facts if all(writer.in_one_pass for writer in writers.values()) else {})
