"Photographs of several sizes."

import numpy as np
from PIL import Image

SIZES = [(40, 30), (30, 50), (64, 64), (21, 33), (19, 19)]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def draw_photos(folder, n, seed):
    "Write n photographs of several sizes for each of two classes"
    for k, name in enumerate('ab'):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise(*SIZES[(i + k) % len(SIZES)], seed=(seed, k, i)).save(folder / name / f'{i:02}.png')


def make_photos(folder):
    "Two classes with eight training and three validation images each"
    draw_photos(folder / 'train', 8, seed=0)
    draw_photos(folder / 'valid', 3, seed=1)
    return folder
