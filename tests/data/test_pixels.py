"An image's pixels: bit depths, large images, several frames, and what is broken called what it is."

import io
import json

import numpy as np
import pytest
import written
from conftest import draw
from PIL import Image

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import load, pixels
from kdfast.data.pixels import decoded, picture, square

RANDOM = np.random.default_rng(0)


def png16(values):
    "A PNG of 16 bits a channel, of 1 to 4 channels, which Pillow cannot write"
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


# Bit depths


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM', 'JPEG2000'])
def test_grey_values_are_scaled_by_their_bit_depth(bits, kind):
    values = RANDOM.integers(0, 2**bits, (12, 9)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    found, problem, remarks = decoded(written.saved(Image.fromarray(values), kind))
    assert not problem and (found == scaled(values, 0, 2**bits - 1)[..., None]).all()
    assert remarks == [f'scaled from {bits} bits (0 … {2**bits - 1}) to 8 bits']


@pytest.mark.parametrize('n', [1, 2, 3, 4])
@pytest.mark.parametrize('bits', [12, 16])
def test_colors_of_more_than_8_bits_keep_them_too(n, bits):
    values = RANDOM.integers(0, 2**bits, (12, 9, n)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    found, problem, remarks = decoded(png16(values))
    assert not problem and (found == scaled(values, 0, 2**bits - 1)[..., : 3 if n > 2 else 1]).all()
    assert ('of more than 8 bits, transparency is ignored' in remarks) == (n in (2, 4))


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
def test_other_numbers_are_scaled_by_their_range(values, span, words):
    for content in (
        written.saved(Image.fromarray(values.astype(np.float32)), 'TIFF'),
        values if values.dtype.kind == 'f' else values.astype(np.int32),
    ):
        found, problem, remarks = decoded(content)
        assert not problem and (found == scaled(values.astype(np.float32), *span)[..., None]).all()
        assert remarks == [f'scaled from {words} to 8 bits']


def xrays(folder, brightest=(4095, 1000, 500)):
    "Grey images of two classes, of which one alone has the brightest value"
    for k, name in enumerate('ab'):
        for i, high in enumerate(brightest):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng([k, i]).integers(0, high + 1, (10, 10)).astype(np.uint16)).save(
                folder / name / f'{i}.png'
            )
    return folder


def read(folder):
    return {(name, i): np.asarray(Image.open(folder / name / f'{i}.png')) for name in 'ab' for i in range(3)}


def all_of(data):
    return [image for images in (data.train[0], data.valid[0]) for image in images[:]]


def test_one_range_for_all_images_of_a_data_set_whatever_each_of_them_holds(tmp_path):
    folder = xrays(tmp_path / 'xrays')
    data = load(str(folder), holdout=0.34)
    expected = [scaled(values, 0, 4095)[..., None].repeat(3, 2) for values in read(folder).values()]
    assert sorted(map(bytes, all_of(data))) == sorted(map(bytes, expected))
    assert data.range == [0, 4095] and 'scaled from 12 bits (0 … 4095) to 8 bits: 6 (a/0.png, …)' in data.notes
    assert not list(cache_home().glob('*/*_deep.bin'))


def test_the_range_can_be_set_and_is_another_data_set(tmp_path):
    folder = xrays(tmp_path / 'xrays')
    usual, window = load(str(folder)), load(str(folder), range='100:600')
    assert sorted(map(bytes, all_of(window))) == sorted(
        bytes(scaled(values, 100, 600)[..., None].repeat(3, 2)) for values in read(folder).values()
    )
    assert window.fingerprint != usual.fingerprint and window.asked['range'] == '100:600'
    assert load(**window.asked).fingerprint == window.fingerprint
    draw(tmp_path / 'plain', 5, seed=0)
    assert '--range changes nothing: no image has more than 8 bits' in load(str(tmp_path / 'plain'), range='0:9').notes


@pytest.mark.parametrize('said', ['5', '5:5', '9:1', 'a:b', '0:inf', 'nan:3', ''])
def test_a_range_out_of_range(tmp_path, said):
    if said:
        with pytest.raises(KdfastError, match='expected LOW:HIGH, such as 0:4095'):
            load(str(xrays(tmp_path / 'xrays')), range=said)


def test_scaling_down_comes_before_8_bits(tmp_path):
    folder = xrays(tmp_path / 'xrays')
    data = load(str(folder), size=8)
    small = [np.asarray(square(Image.fromarray(values.astype(np.float32)), 9)) for values in read(folder).values()]
    assert sorted(map(bytes, all_of(data))) == sorted(
        bytes(scaled(values, 0, 4095)[..., None].repeat(3, 2)) for values in small
    )


def test_a_trained_network_scales_new_images_as_its_training_images_were(kdfast, tmp_path):
    "An image of the darkest kind alone would be taken for one of 10 bits"
    folder = xrays(tmp_path / 'xrays', (4095, 1000, 500, 700, 900, 800))
    done = kdfast('run', 'baseline', '--data', folder, '--epochs', 1, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
    (run,) = (tmp_path / 'runs').glob('*/*/0')
    data = load(str(folder))
    from kdfast.export.predict import classifier, load_image

    _, facts = classifier(run / 'weights.safetensors')
    assert facts['range'] == [0, 4095]
    assert any((load_image(folder / 'a' / '2.png', facts) == image).all() for image in all_of(data))


# Large images


def test_a_large_jpeg_is_reduced_while_it_is_decoded():
    content = written.saved(Image.effect_noise((1500, 1200), 80).convert('RGB').resize((3000, 2400)), 'JPEG')
    found = picture(content, 64)
    assert found.size == (3000, 2400) and found.pixels.shape == (64, 64, 3)
    whole = square(Image.open(io.BytesIO(content)).convert('RGB'), 64)
    assert np.abs(found.pixels.astype(int) - np.asarray(whole)).mean() < 3


def test_a_small_jpeg_is_decoded_as_ever():
    content = written.saved(Image.effect_noise((120, 90), 80).convert('RGB'), 'JPEG')
    assert (picture(content, 64).pixels == np.asarray(square(Image.open(io.BytesIO(content)).convert('RGB'), 64))).all()


def test_what_is_larger_than_beside_others_is_read_alone(monkeypatch):
    content = {
        mode: written.saved(Image.effect_noise((300, 200), 80).convert(mode), 'PNG')
        for mode in ('L', 'RGB', 'RGBA', 'P', '1')
    }
    whole = {mode: picture(content[mode], 16).pixels.astype(int) for mode in content}
    monkeypatch.setattr(pixels, 'PIXEL_LIMIT', 10_000)
    for mode in content:
        found = picture(content[mode], 16)
        assert not found.problem and np.abs(found.pixels - whole[mode]).mean() < 4
        assert '300×200 is more than 10,000 pixels: give a --size' in picture(content[mode]).problem


def test_beyond_pillows_own_limit_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert (
        picture(written.plain('PNG')(written.pixels('train', 0, 0)), 8).problem
        == 'larger than the 200 pixels that Pillow allows: scale it down'
    )


# What is said of them


def frames(kind, **how):
    return written.saved(
        Image.fromarray(written.pixels('train', 0, 0)),
        kind,
        save_all=True,
        append_images=[Image.fromarray(written.pixels('train', 1, i)) for i in range(2)],
        **how,
    )


@pytest.mark.parametrize(
    'kind,said',
    [
        ('GIF', ['animated, the first frame is used']),
        ('WEBP', ['animated, the first frame is used']),
        ('PNG', ['animated, the first frame is used']),
        ('AVIF', ['animated, the first frame is used']),
        ('TIFF', ['several pages, the first is used']),
        ('MPO', []),
    ],
)
def test_several_pictures_in_a_file(kind, said):
    found, problem, remarks = decoded(frames(kind))
    assert not problem and remarks == said
    if kind == 'TIFF':
        assert (found == written.pixels('train', 0, 0)).all()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'deep PNG', 'deep TIFF'])
def test_an_image_is_turned_once(orientation, kind):
    grey = RANDOM.integers(0, 256, (6, 9)).astype(np.uint8)
    grey[0, 0] = 255
    upright = [
        None,
        grey,
        grey[:, ::-1],
        grey[::-1, ::-1],
        grey[::-1],
        grey.T,
        np.rot90(grey, -1),
        grey.T[::-1, ::-1],
        np.rot90(grey),
    ][orientation]
    image = Image.fromarray(grey.astype(np.uint16) * 257 if kind.startswith('deep') else grey)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found, _, remarks = decoded(
        written.saved(
            image, kind.split()[-1], **(dict(tiffinfo={0x0112: orientation}) if 'TIFF' in kind else dict(exif=exif))
        )
    )
    assert (found[..., 0] == upright).all() and ('turned as their EXIF data say' in remarks) == (orientation > 1)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM'])
def test_whatever_a_file_holds_is_an_image_or_a_reason(kind):
    "Cut anywhere, and with bytes changed at random: never an exception"
    content, random = written.plain(kind)(written.pixels('train', 0, 0)), np.random.default_rng(0)
    for n in range(60):
        broken = bytearray(content[: int(random.integers(1, len(content) + 1))] if n % 2 else content)
        for at in random.integers(0, len(broken), n // 6):
            broken[at] = random.integers(256)
        found = picture(bytes(broken), 8 if n % 3 else None)
        assert found.problem or found.pixels.ndim >= 2


# Leaving out what is broken


def damaged(folder):
    draw(folder, 5, seed=0)
    for name in ('ape/001.png', 'bee/003.png'):
        (folder / name).write_bytes(b'<html>')
    return folder


def test_broken_images_are_left_out_where_that_is_wanted_and_counted(tmp_path, kdfast):
    folder = damaged(tmp_path / 'pets')
    with pytest.raises(
        KdfastError,
        match=r'ape/001.png \(no image but a web page: download the image again\); bee/003.png .* '
        r'cannot be read: replace or remove, or leave out what is broken with --skip-broken',
    ):
        load(str(folder))
    data = load(str(folder), skip_broken=True)
    assert data.skipped == 2 and len(data.train[1]) + len(data.valid[1]) == 13
    assert any('left out, cannot be read: 2 (ape/001.png (' in note for note in data.notes)
    with pytest.raises(KdfastError, match='2 images cannot be read: .* --skip-broken'):
        load(str(folder))  # the cache does not hide them
    for file in ('ape/001.png', 'bee/003.png'):
        (folder / file).unlink()
    whole = load(str(folder))
    assert whole.fingerprint == data.fingerprint and (whole.train[0][:] == data.train[0][:]).all()


def test_a_result_tells_how_many_were_left_out(tmp_path, kdfast):
    done = kdfast(
        'run',
        'baseline',
        '--data',
        damaged(tmp_path / 'pets'),
        '--epochs',
        1,
        '--skip-broken',
        '--runs',
        tmp_path / 'runs',
        '--json',
    )
    assert done.status == 0 and json.loads(done.out)['skipped_images'] == 2, done.err


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path):
    draw(tmp_path / 'pets', 3, seed=0)
    for file in (tmp_path / 'pets' / 'ape').iterdir():
        file.write_bytes(b'')
    with pytest.raises(KdfastError, match='no training image of ape can be read'):
        load(str(tmp_path / 'pets'), skip_broken=True)
