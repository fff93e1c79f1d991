"Images of three classes, and writers of every format."

import io

import numpy as np
from PIL import Image

CLASSES = ['ape', 'bee', 'cat']
N_IMAGES = dict(train=4, valid=2, test=1)  # of each class
SIDE = 16
TRAIN, BOTH, ALL = ('train',), ('train', 'valid'), ('train', 'valid', 'test')


def make_image(split, label, i, side=SIDE):
    "A unique image, whose brightest channel is its class"
    random = np.random.default_rng([ALL.index(split), label, i])
    image = random.integers(0, 100, (side, side, 3), dtype=np.uint8)
    image[..., label % 3] += 120
    return image


def all_images(splits=BOTH, side=SIDE):
    "(split, label, number, image) of every image"
    return [
        (split, label, i, make_image(split, label, i, side))
        for split in splits
        for label in range(len(CLASSES))
        for i in range(N_IMAGES[split])
    ]


def images_and_labels(split, side=SIDE):
    "(images, labels) of a split, as lists"
    images = all_images((split,), side)
    return [image for *_, image in images], [label for _, label, *_ in images]


# Formats


def encode(image, kind, **options):
    "The bytes of a PIL image in a format of Pillow"
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def writer(kind, **options):
    "A function from an array to the bytes of a file"
    return lambda image: encode(Image.fromarray(image), kind, **options)


def deep_writer(kind, bits):
    "The same, gray with more than 8 bits"

    def gray(image):
        return (image.max(2).astype(float) * (2**bits - 1) / 255).round().astype(np.uint16)

    return lambda image: encode(Image.fromarray(gray(image)), kind)


def write_float(image):
    return encode(Image.fromarray((image.max(2) / 255).astype(np.float32)), 'TIFF')


FORMATS = {  # name: suffix, writer, largest mean difference of what is read, whether only the brightest channel is kept
    'PNG': ('.png', writer('PNG'), 0, False),
    'JPEG': ('.jpg', writer('JPEG', quality=95), 25, False),
    'upper case': ('.JPEG', writer('JPEG', quality=95), 25, False),
    'WebP': ('.webp', writer('WEBP', lossless=True), 0, False),
    'BMP': ('.bmp', writer('BMP'), 0, False),
    'TIFF': ('.tif', writer('TIFF'), 0, False),
    'TIFF, LZW': ('.tiff', writer('TIFF', compression='tiff_lzw'), 0, False),
    'GIF': ('.gif', writer('GIF'), 30, False),
    'PPM': ('.ppm', writer('PPM'), 0, False),
    'JPEG 2000': ('.jp2', writer('JPEG2000'), 0, False),
    'AVIF': ('.avif', writer('AVIF', quality=95), 25, False),
    'JFIF': ('.jfif', writer('JPEG', quality=95), 25, False),
    'TGA': ('.tga', writer('TGA'), 0, False),
    'PCX': ('.pcx', writer('PCX'), 0, False),
    'SGI': ('.sgi', writer('SGI'), 0, False),
    'QOI': ('.qoi', writer('QOI'), 0, False),
    'DDS': ('.dds', writer('DDS'), 0, False),
    'ICO': ('.ico', writer('ICO', sizes=[(SIDE, SIDE)]), 0, False),
    'DIB': ('.dib', writer('DIB'), 0, False),
    'wrong suffix': ('.jpg', writer('PNG'), 0, False),
    'no suffix': ('', writer('PNG'), 0, False),
    'unknown suffix': ('.photo', writer('PNG'), 0, False),
    'PNG, 16 bits': ('.png', deep_writer('PNG', 16), 1, True),
    'PNG, 12 bits': ('.png', deep_writer('PNG', 12), 1, True),
    'TIFF, 10 bits': ('.tif', deep_writer('TIFF', 10), 1, True),
    'PGM, 14 bits': ('.pgm', deep_writer('PPM', 16), 1, True),
    'TIFF, float': ('.tif', write_float, 1, True),
}
