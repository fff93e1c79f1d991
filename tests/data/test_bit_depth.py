"Images of more than 8 bits per channel: one range of values for all images."

import numpy as np
import pytest
import samples
from conftest import draw
from PIL import Image

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.pixels import decode_8bit, resize_center_crop

RANDOM = np.random.default_rng(0)


def png16(values):
    "A PNG of 16 bits per channel with 1 to 4 channels, which Pillow cannot write"
    import struct
    import zlib

    height, width, n = values.shape

    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[n], 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )


def scaled(values, low, high):
    return np.rint((values.astype(float) - low) * 255 / (high - low)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM', 'JPEG2000'])
def test_gray_values_are_scaled_by_bit_depth(bits, kind):
    values = RANDOM.integers(0, 2**bits, (12, 9)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    found, problem, remarks = decode_8bit(samples.encode(Image.fromarray(values), kind))
    assert not problem and (found == scaled(values, 0, 2**bits - 1)[..., None]).all()
    assert remarks == [f'scaled from {bits} bits (0 … {2**bits - 1}) to 8 bits']


@pytest.mark.parametrize('n', [1, 2, 3, 4])
@pytest.mark.parametrize('bits', [12, 16])
def test_deep_colors_are_scaled_by_bit_depth(n, bits):
    values = RANDOM.integers(0, 2**bits, (12, 9, n)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    found, problem, remarks = decode_8bit(png16(values))
    assert not problem and (found == scaled(values, 0, 2**bits - 1)[..., : 3 if n > 2 else 1]).all()
    assert ('more than 8 bits, transparency is ignored' in remarks) == (n in (2, 4))


@pytest.mark.parametrize(
    'values,span,words',
    [
        (RANDOM.random((9, 9)), (0, 1), 'floating-point values (0 … 1)'),
        (np.linspace(-1, 2, 81).reshape(9, 9), (-1, 2), 'floating-point values (-1 … 2)'),
        (np.arange(-1000, 3050, 50).reshape(9, 9), (-1000, 3000), 'whole numbers (-1000 … 3000)'),
        (np.arange(81.0).reshape(9, 9) * 50, (0, 4095), '12 bits (0 … 4095)'),
        (np.arange(81).reshape(9, 9) * 1000, (0, 80000), 'whole numbers (0 … 80000)'),
        (np.zeros((9, 9)), (0, 255), '8 bits (0 … 255)'),
    ],
)
def test_other_numbers_are_scaled_by_range(values, span, words):
    for content in (
        samples.encode(Image.fromarray(values.astype(np.float32)), 'TIFF'),
        values if values.dtype.kind == 'f' else values.astype(np.int32),
    ):
        found, problem, remarks = decode_8bit(content)
        assert not problem and (found == scaled(values.astype(np.float32), *span)[..., None]).all()
        assert remarks == [f'scaled from {words} to 8 bits']


def make_xrays(folder, brightest=(4095, 1000, 500)):
    "Gray images of two classes; only one image per class has the highest value"
    for k, name in enumerate('ab'):
        for i, high in enumerate(brightest):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng([k, i]).integers(0, high + 1, (10, 10)).astype(np.uint16)).save(
                folder / name / f'{i}.png'
            )
    return folder


def read_images(folder):
    return {(name, i): np.asarray(Image.open(folder / name / f'{i}.png')) for name in 'ab' for i in range(3)}


def all_images(data):
    return [image for images in (data.train[0], data.valid[0]) for image in images[:]]


def test_all_images_share_one_range(tmp_path):
    folder = make_xrays(tmp_path / 'xrays')
    data = load(str(folder), holdout=0.34)
    expected = [scaled(values, 0, 4095)[..., None].repeat(3, 2) for values in read_images(folder).values()]
    assert sorted(map(bytes, all_images(data))) == sorted(map(bytes, expected))
    assert data.range == [0, 4095] and 'scaled from 12 bits (0 … 4095) to 8 bits: 6 (a/0.png, …)' in data.notes
    assert not list(cache_home().glob('*/*_deep.bin'))


def test_range_option(tmp_path):
    folder = make_xrays(tmp_path / 'xrays')
    usual, window = load(str(folder)), load(str(folder), range='100:600')
    assert sorted(map(bytes, all_images(window))) == sorted(
        bytes(scaled(values, 100, 600)[..., None].repeat(3, 2)) for values in read_images(folder).values()
    )
    assert window.fingerprint != usual.fingerprint and window.load_arguments['range'] == '100:600'
    assert load(**window.load_arguments).fingerprint == window.fingerprint
    draw(tmp_path / 'plain', 5, seed=0)
    assert '--range has no effect: no image has more than 8 bits' in load(str(tmp_path / 'plain'), range='0:9').notes


@pytest.mark.parametrize('text', ['5', '5:5', '9:1', 'a:b', '0:inf', 'nan:3', ''])
def test_invalid_range_is_rejected(tmp_path, text):
    if text:
        with pytest.raises(KdfastError, match='expected LOW:HIGH, such as 0:4095'):
            load(str(make_xrays(tmp_path / 'xrays')), range=text)


def test_images_are_resized_before_conversion_to_8_bits(tmp_path):
    folder = make_xrays(tmp_path / 'xrays')
    data = load(str(folder), size=8)
    small = [
        np.asarray(resize_center_crop(Image.fromarray(values.astype(np.float32)), 9))
        for values in read_images(folder).values()
    ]
    assert sorted(map(bytes, all_images(data))) == sorted(
        bytes(scaled(values, 0, 4095)[..., None].repeat(3, 2)) for values in small
    )


def test_prediction_uses_the_range_of_the_training_images(kdfast, tmp_path):
    "The default range of a dark image would be 10 bits"
    folder = make_xrays(tmp_path / 'xrays', (4095, 1000, 500, 700, 900, 800))
    done = kdfast('run', 'baseline', '--data', folder, '--epochs', 1, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
    (run,) = (tmp_path / 'runs').glob('*/*/0')
    data = load(str(folder))
    from kdfast.export.predict import classifier, load_image

    _, facts = classifier(run / 'weights.safetensors')
    assert facts['range'] == [0, 4095]
    assert any((load_image(folder / 'a' / '2.png', facts) == image).all() for image in all_images(data))
