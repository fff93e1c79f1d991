"Data sets of every layout, container and format, written from the same images, to test what is read."

from samples.compare import find_difference, layout_difference
from samples.containers import CONTAINERS, tar_bytes, to_folder, to_tar, to_zip
from samples.hubs import ARRAYS, npz, parquet, shards
from samples.images import (
    ALL,
    BOTH,
    CLASSES,
    FORMATS,
    N_IMAGES,
    TRAIN,
    all_images,
    encode,
    images_and_labels,
    make_image,
    writer,
)
from samples.layouts import LAYOUTS, layout_files
from samples.official import SOURCES, cifar10, cifar100
from samples.rejected import REJECTED, array_bytes

__all__ = [
    'ALL',
    'ARRAYS',
    'BOTH',
    'CLASSES',
    'CONTAINERS',
    'FORMATS',
    'LAYOUTS',
    'N_IMAGES',
    'REJECTED',
    'SOURCES',
    'TRAIN',
    'all_images',
    'array_bytes',
    'cifar10',
    'cifar100',
    'encode',
    'find_difference',
    'images_and_labels',
    'layout_difference',
    'layout_files',
    'make_image',
    'npz',
    'parquet',
    'shards',
    'tar_bytes',
    'to_folder',
    'to_tar',
    'to_zip',
    'writer',
]
