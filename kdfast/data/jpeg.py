"""Decode usual JPEG files with torchvision: the same pixels as Pillow's, in less time.

Both call libjpeg-turbo. Pillow parses the header in Python, one thread at a time, which for small images takes longer
than their decoding. Images that are scaled are left to Pillow, which reduces them while it decodes.
"""

import io
import struct
import sys
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

MANY = 10_000  # images whose decoding takes longer than the import of torchvision
START, SCAN, EXIF_OR_XMP, EXTENSION = 0xD8, 0xDA, 0xE1, 0xE2  # markers, each after a byte 0xFF
FRAMES = 0xC0, 0xC1, 0xC2  # baseline, extended and progressive: compressed by Huffman's code
WITHOUT_LENGTH = 0x00, 0x01, *range(0xD0, 0xDA), 0xFF  # markers that no segment follows
MODES = {1: 'L', 3: 'RGB'}  # by the number of components


class Frame(NamedTuple):
    "What the header of a JPEG file says about its image."

    width: int  # Pixels
    height: int  # Pixels
    mode: str  # As Pillow names it: L or RGB


def prepare(
    n_images: int,  # That will be decoded
):
    "Import torchvision if that takes less time than it saves."
    if n_images >= MANY:
        import torchvision.io  # noqa: F401


def is_usable() -> bool:
    "Return whether torchvision is imported and decodes to the same pixels as Pillow."
    return 'torchvision' in sys.modules and equals_pillow()


def read_frame(
    content: bytes,  # Of a file
) -> Frame | None:
    """Return the frame of a JPEG file that is one upright image of 8 bits in gray or three colors.

    None for other files, and for those that could be rotated: with EXIF or XMP data.
    """
    frame, at = None, 2
    if content[:2] != bytes((0xFF, START)):
        return None
    while at + 4 <= len(content):
        prefix, marker, length = struct.unpack_from('>BBH', content, at)
        if marker == SCAN:
            return frame
        holds_images = marker == EXTENSION and content[at + 4 : at + 8] == b'MPF\0'
        if prefix != 0xFF or marker in WITHOUT_LENGTH or marker == EXIF_OR_XMP or holds_images:
            return None
        if marker in FRAMES and at + 10 <= len(content):
            bits, height, width, components = struct.unpack_from('>BHHB', content, at + 4)
            frame = Frame(width, height, MODES[components]) if bits == 8 and components in MODES else None
        at += 2 + length
    return None


def decode_jpeg(
    content: bytes,  # Of a JPEG file
) -> np.ndarray | None:  # (height, width, 3), uint8
    """Decode a JPEG file to RGB with torchvision; None if that fails.

    Of some damaged files, its libjpeg writes a line to stderr. Only redirecting the stderr of the process would prevent
    that, and hide what other threads write meanwhile.
    """
    import torch
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decode_channels

    try:
        channels = decode_channels(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None  # Pillow says why
    return np.ascontiguousarray(channels.permute(1, 2, 0).numpy())


@cache
def equals_pillow() -> bool:
    "Return whether both decode samples to the same pixels: each may bring a libjpeg of its own."
    return all(
        np.array_equal(decode_jpeg(content), Image.open(io.BytesIO(content)).convert('RGB')) for content in samples()
    )


def samples() -> list[bytes]:
    "Return JPEG files in gray and color, with and without subsampling, sequential and progressive."
    noise = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    files = []
    for image in (Image.fromarray(noise), Image.fromarray(noise[..., 0])):
        for options in (dict(subsampling=0), dict(subsampling=1), dict(subsampling=2), dict(progressive=True)):
            stream = io.BytesIO()
            image.save(stream, 'JPEG', **options)
            files.append(stream.getvalue())
    return files
