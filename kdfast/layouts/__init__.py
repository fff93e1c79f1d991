"The layouts of data sets: each module has `matches(source)` and `read(source)`, which gives (name, split, label, open) of every image."
from kdfast.layouts import arrays, binary, cifar, folders, lists, matlab, parquet, table, webdataset
from kdfast.layouts.base import Listing, Source

LAYOUTS = (parquet, webdataset, arrays, cifar, binary, matlab, lists, table, folders) # the first one that matches reads


def read(source:Source) -> Listing:
    "The images of a source, by the first layout that it has. Raises KdfastError where it has none."
    return next(layout for layout in LAYOUTS if layout.matches(source)).read(source)
