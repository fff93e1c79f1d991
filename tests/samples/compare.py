"Compare a data set that was read with the images that were written."

import numpy as np

from samples.images import CLASSES, FORMATS, N_IMAGES, SIDE, all_images
from samples.layouts import LAYOUTS


def layout_difference(data, layout, kind):
    "What is wrong with a data set that was written in a layout and a format; empty if it is right"
    splits = LAYOUTS[layout][0]
    *_, tolerance, brightest = FORMATS[kind]
    return find_difference(data, splits, tolerance, brightest)


def find_difference(data, splits, tolerance=0, brightest=False, classes=CLASSES, side=SIDE):
    "What is wrong with a data set; empty if it is right"
    if data.classes != classes:
        return f'classes {data.classes}'
    found = dict(train=data.train, valid=data.valid, test=data.test)
    if 'valid' not in splits:  # a fraction of the training images was held out
        found['train'] = [np.concatenate([train[:], valid[:]]) for train, valid in zip(data.train, data.valid)]
        if len(data.valid[1]) != len(classes) * max(1, round(0.2 * N_IMAGES['train'])):
            return f'{len(data.valid[1])} validation images'
    for split in splits:
        expected = [(label, image) for _, label, _, image in all_images((split,), side)]
        problem = _split_difference(expected, *found[split], tolerance, brightest)
        if problem:
            return f'{split}: {problem}'
    return ''


def _split_difference(expected, images, labels, tolerance, brightest):
    images = np.asarray(images[:]).astype(int)
    if len(images) != len(expected):
        return f'{len(images)} images'
    for label, image in expected:
        if brightest:
            image = np.repeat(image.max(2, keepdims=True), 3, 2)
        differences = np.abs(images - image).mean((1, 2, 3))
        nearest = differences.argmin()
        if differences[nearest] > tolerance:
            return f'an image differs by {differences[nearest]:.1f} from what was written'
        if labels[nearest] != label:
            return 'a wrong label'
    return ''
