"JPEG files decoded with torchvision have the pixels, the kind and the problems that Pillow finds."

import io
from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
import torchvision  # noqa: F401 (which must be imported to be used)
from PIL import Image

from kdfast.data import jpeg, pixels

SIDES = None, 8, 16, 40
RANDOM = np.random.default_rng(0)


def image_of(width, height, mode='RGB'):
    smooth = RANDOM.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def saved(image, format='JPEG', **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[pixels.ORIENTATION] = orientation
    return tags


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
USUAL = [
    saved(image_of(*size, mode), **options)
    for size, mode, options in product(
        [(1, 1), (33, 47), (64, 64), (65, 31)],
        ['RGB', 'L'],
        [{}, dict(quality=30), dict(quality=100), dict(progressive=True), dict(subsampling=0), dict(subsampling=1)],
    )
]
USUAL += [
    saved(image_of(50, 40), **options)
    for options in (dict(restart_marker_rows=1), dict(optimize=True), dict(comment=b'a'), dict(keep_rgb=True))
]
USUAL.append(saved(image_of(50, 40), icc_profile=bytes(70_000)))
OTHER = [saved(image_of(50, 40), exif=exif(orientation)) for orientation in range(1, 9)]
OTHER += [saved(image_of(50, 40), xmp=XMP), saved(image_of(50, 40, 'CMYK')), saved(image_of(50, 40), 'PNG')]
OTHER.append(saved(image_of(50, 40), 'MPO', save_all=True, append_images=[image_of(50, 40)]))


def with_pillow(monkeypatch, content, side):
    with monkeypatch.context() as patch:
        patch.setattr(pixels, 'is_usable', lambda: False)
        return pixels.decode_image(content, side)


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.problem, list(found.remarks), *astuple(found)[3:]) == (
        expected.problem,
        list(expected.remarks),
        *astuple(expected)[3:],
    )


@pytest.mark.parametrize('side', SIDES)
def test_every_kind_is_decoded_as_pillow_decodes_it(side, monkeypatch):
    assert jpeg.is_usable()
    for content in USUAL + OTHER:
        assert_equal(pixels.decode_image(content, side), with_pillow(monkeypatch, content, side))


def test_usual_files_are_decoded_without_pillow_and_others_with_it(monkeypatch):
    for content in USUAL:
        assert jpeg.read_frame(content)[:2] == Image.open(io.BytesIO(content)).size
        with monkeypatch.context() as patch:
            patch.setattr(Image, 'open', None)
            assert pixels.decode_image(content).pixels is not None
    assert not any(map(jpeg.read_frame, OTHER))


def test_an_image_that_pillow_reduces_while_it_decodes_is_left_to_pillow(monkeypatch):
    content = saved(image_of(64, 64))
    monkeypatch.setattr(pixels, 'decode_jpeg', lambda content: pytest.fail('decoded at its full size'))
    pixels.decode_image(content, 16)
    monkeypatch.setattr(pixels, 'PIXEL_LIMIT', 1000)
    assert 'more than 1,000 pixels' in pixels.decode_image(content).problem


def test_damaged_files_are_judged_as_pillow_judges_them(monkeypatch):
    sound = USUAL[12]
    for i in range(300):
        damaged = bytearray(sound[: RANDOM.integers(2, len(sound))] if i % 2 else sound)
        for at in RANDOM.integers(2, len(damaged), 2):
            damaged[at] = RANDOM.integers(256)
        assert_equal(pixels.decode_image(bytes(damaged)), with_pillow(monkeypatch, bytes(damaged), None))


def test_a_torchvision_that_decodes_other_pixels_is_not_used(monkeypatch):
    decode = jpeg.decode_jpeg
    monkeypatch.setattr(jpeg, 'decode_jpeg', lambda content: decode(content) ^ 1)
    monkeypatch.setattr(jpeg, 'equals_pillow', jpeg.equals_pillow.__wrapped__)
    assert not jpeg.is_usable()


def test_torchvision_is_imported_for_many_images_only(monkeypatch):
    imported = []
    monkeypatch.setattr('builtins.__import__', lambda name, *others: imported.append(name))
    jpeg.prepare(jpeg.MANY - 1)
    assert not imported
    jpeg.prepare(jpeg.MANY)
    assert imported == ['torchvision.io']
