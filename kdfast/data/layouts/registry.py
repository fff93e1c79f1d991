"""Layouts of data sets. Each module has two functions: `matches(source)` and `read(source)`.

`read` gives the name, the split, the label and an opener of every image.
"""

from kdfast.data.layouts import arrays, binary, cifar, folders, lists, matlab, parquet, table, webdataset
from kdfast.data.layouts.base import Listing, Source

LAYOUTS = (
    parquet,
    webdataset,
    arrays,
    cifar,
    binary,
    matlab,
    lists,
    table,
    folders,
)  # the first one that matches reads


def read(source: Source) -> Listing:
    "The images of a source, by the first layout that it has. Raises KdfastError where it has none."
    return next(layout for layout in LAYOUTS if layout.matches(source)).read(source)
