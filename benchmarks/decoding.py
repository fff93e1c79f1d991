"""Compare how fast kdfast reads a folder of JPEG images with Pillow on all cores; interleaved, as ratios.

python benchmarks/decoding.py [--images 2000] [--rounds 3]

Pillow: a pool of processes, one per core, in which each image is opened, converted to RGB and scaled. kdfast: the same
images from finding them to the arrays in the cache, with checks, statistics and SHA-256 of the pixels.
"""

import argparse
import os
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import torchvision  # noqa: E402, F401 (as recipes do, with fastai)

from kdfast.core.cores import usable_cores  # noqa: E402
from kdfast.core.memory import keep_freed_memory  # noqa: E402
from kdfast.data import load  # noqa: E402

SIZES = {  # of the files, and the side of the squares to which they are scaled
    'photographs of 500×375, to 96×96': ((500, 375), 96),
    'photographs of 500×375, to 224×224': ((500, 375), 224),
    'small images of 32×32, as they are': ((32, 32), None),
}


def draw(folder: Path, n: int, shape: tuple[int, int]):
    "Write smooth random JPEG images of two classes."
    random = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        file = folder / 'train' / 'ab'[i % 2] / f'{i:05}.jpg'
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize(shape, Image.Resampling.BICUBIC).save(file, quality=90)
    for name in 'ab':
        (folder / 'valid' / name).mkdir(parents=True)
        coarse.resize(shape).save(folder / 'valid' / name / '0.jpg')


def decode_with_pillow(task):
    "Decode one image"
    file, side = task
    with Image.open(file) as image:
        image = image.convert('RGB')
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR) if side else image)


def with_pillow(folder: Path, side: int | None):
    "Decode all images in a process per core"
    files = sorted(folder.rglob('*.jpg'))
    with get_context('fork').Pool(usable_cores()) as pool:
        found = pool.map(decode_with_pillow, [(file, side) for file in files], chunksize=16)
    return np.stack(found)


def with_kdfast(folder: Path, side: int | None):
    "Read the data set for the first time"
    with tempfile.TemporaryDirectory() as cache:
        os.environ['XDG_CACHE_HOME'] = cache
        return load(str(folder), size=side)


def timed(read, *arguments):
    began = perf_counter()
    read(*arguments)
    return perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()  # as the command line does; the processes of Pillow inherit it
    for name, (shape, side) in SIZES.items():
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / 'photos'
            draw(folder, options.images, shape)
            took = {read: [] for read in (with_pillow, with_kdfast)}
            for _ in range(options.rounds):
                for read in took:
                    took[read].append(timed(read, folder, side))
        rates = {read.__name__: options.images / median(seconds) for read, seconds in took.items()}
        ratios = [ours / theirs for ours, theirs in zip(took[with_kdfast], took[with_pillow])]
        print(
            f'{name}: Pillow {rates["with_pillow"]:,.0f}, kdfast {rates["with_kdfast"]:,.0f} images a second; time of '
            f'kdfast against Pillow {median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})',
            flush=True,
        )


if __name__ == '__main__':
    main()
