"Decoding one image: large images, several frames, orientation, broken files."

import io
import json
from contextlib import suppress

import numpy as np
import pytest
import samples
from conftest import draw
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data import decode as scan
from kdfast.data import from_frame, load, pixels
from kdfast.data.pixels import decode_8bit, decode_image, resize_center_crop

RANDOM = np.random.default_rng(0)


def test_large_jpeg_is_reduced_while_decoding():
    content = samples.encode(Image.effect_noise((1500, 1200), 80).convert('RGB').resize((3000, 2400)), 'JPEG')
    found = decode_image(content, 64)
    assert found.size == (3000, 2400) and found.pixels.shape == (64, 64, 3)
    whole = resize_center_crop(Image.open(io.BytesIO(content)).convert('RGB'), 64)
    assert np.abs(found.pixels.astype(int) - np.asarray(whole)).mean() < 3


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'MPO', 'TIFF', 'WEBP'])
def test_images_of_the_caller_keep_their_size(kind):
    "Pixels do not depend on the sizes that an image was decoded to before"
    content = samples.encode(Image.effect_noise((512, 400), 80).convert('RGB'), kind)
    image = Image.open(io.BytesIO(content))
    first = decode_image(image, 16)
    assert image.size == (512, 400) and first.size == (512, 400)
    again, fresh = decode_image(image, 64), decode_image(Image.open(io.BytesIO(content)), 64)
    assert (again.pixels == fresh.pixels).all() and (decode_image(image, 16).pixels == first.pixels).all()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'TIFF', 'BMP'])
def test_images_of_the_caller_never_raise(kind, tmp_path):
    "Truncated, or closed before their pixels are read"
    content = samples.encode(Image.effect_noise((64, 64), 80).convert('RGB'), kind)
    for n in (1, 3, 30):
        with suppress(OSError, SyntaxError):  # Pillow does not open it
            found = decode_image(Image.open(io.BytesIO(content[: -len(content) * n // 31])))
            assert found.problem
    (tmp_path / 'image').write_bytes(content)
    with Image.open(tmp_path / 'image') as image:
        pass
    assert decode_image(image).problem == (
        'its file was closed before its pixels were read: load or copy the image first'
    )


def test_small_jpeg_is_not_reduced():
    content = samples.encode(Image.effect_noise((120, 90), 80).convert('RGB'), 'JPEG')
    assert (
        decode_image(content, 64).pixels
        == np.asarray(resize_center_crop(Image.open(io.BytesIO(content)).convert('RGB'), 64))
    ).all()


def test_large_images_are_decoded_alone(monkeypatch):
    content = {
        mode: samples.encode(Image.effect_noise((300, 200), 80).convert(mode), 'PNG')
        for mode in ('L', 'RGB', 'RGBA', 'P', '1')
    }
    whole = {mode: decode_image(content[mode], 16).pixels.astype(int) for mode in content}
    monkeypatch.setattr(pixels, 'PIXEL_LIMIT', 10_000)
    for mode in content:
        found = decode_image(content[mode], 16)
        assert not found.problem and np.abs(found.pixels - whole[mode]).mean() < 4
        assert '300×200 is more than 10,000 pixels: scale it down with --size' in decode_image(content[mode]).problem


def test_limit_of_pillow_gives_a_remedy(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert (
        decode_image(samples.writer('PNG')(samples.make_image('train', 0, 0)), 8).problem
        == 'more than the 200 pixels that Pillow allows: scale it down'
    )


def frames(kind, **how):
    return samples.encode(
        Image.fromarray(samples.make_image('train', 0, 0)),
        kind,
        save_all=True,
        append_images=[Image.fromarray(samples.make_image('train', 1, i)) for i in range(2)],
        **how,
    )


@pytest.mark.parametrize(
    'kind,expected',
    [
        ('GIF', ['animated, the first frame is used']),
        ('WEBP', ['animated, the first frame is used']),
        ('PNG', ['animated, the first frame is used']),
        ('AVIF', ['animated, the first frame is used']),
        ('TIFF', ['several pages, the first is used']),
        ('MPO', []),
    ],
)
def test_files_of_several_images(kind, expected):
    found, problem, remarks = decode_8bit(frames(kind))
    assert not problem and remarks == expected
    if kind == 'TIFF':
        assert (found == samples.make_image('train', 0, 0)).all()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'deep PNG', 'deep TIFF'])
def test_orientation_is_applied_once(orientation, kind):
    gray = RANDOM.integers(0, 256, (6, 9)).astype(np.uint8)
    gray[0, 0] = 255
    upright = [
        None,
        gray,
        gray[:, ::-1],
        gray[::-1, ::-1],
        gray[::-1],
        gray.T,
        np.rot90(gray, -1),
        gray.T[::-1, ::-1],
        np.rot90(gray),
    ][orientation]
    image = Image.fromarray(gray.astype(np.uint16) * 257 if kind.startswith('deep') else gray)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found, _, remarks = decode_8bit(
        samples.encode(
            image, kind.split()[-1], **(dict(tiffinfo={0x0112: orientation}) if 'TIFF' in kind else dict(exif=exif))
        )
    )
    assert (found[..., 0] == upright).all() and ('rotated by their EXIF orientation' in remarks) == (orientation > 1)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM'])
def test_damaged_files_never_raise(kind):
    "Truncated anywhere, and with random bytes changed"
    content, random = samples.writer(kind)(samples.make_image('train', 0, 0)), np.random.default_rng(0)
    for n in range(60):
        broken = bytearray(content[: int(random.integers(1, len(content) + 1))] if n % 2 else content)
        for at in random.integers(0, len(broken), n // 6):
            broken[at] = random.integers(256)
        found = decode_image(bytes(broken), 8 if n % 3 else None)
        assert found.problem or found.pixels.ndim >= 2


def damaged(folder):
    draw(folder, 5, seed=0)
    for name in ('ape/001.png', 'bee/003.png'):
        (folder / name).write_bytes(b'<html>')
    return folder


def test_broken_images_can_be_skipped(tmp_path, monkeypatch, capsys):
    folder = damaged(tmp_path / 'pets')
    with pytest.raises(
        KdfastError,
        match=r'ape/001.png, bee/003.png \(not an image but a web page: download the image again\): '
        r'replace or remove these images, or skip them with --skip-broken',
    ):
        load(str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(scan, 'decode_image', lambda *_: pytest.fail('decoded again'))
        data = load(str(folder), skip_broken=True)
    assert 'skipped, cannot be read: 2 (ape/001.png (' in capsys.readouterr().err
    assert data.skipped == 2 and len(data.train[1]) + len(data.valid[1]) == 13
    assert any('skipped, cannot be read: 2 (ape/001.png (' in note for note in data.notes)
    with pytest.raises(KdfastError, match='cannot read ape/001.png, bee/003.png .* --skip-broken'):
        load(str(folder))  # the cache does not hide them
    for file in ('ape/001.png', 'bee/003.png'):
        (folder / file).unlink()
    whole = load(str(folder))
    assert whole.fingerprint == data.fingerprint and (whole.train[0][:] == data.train[0][:]).all()


def test_images_that_can_be_read_again_are_no_longer_broken(tmp_path, monkeypatch):
    "A plugin was installed, or the disk has recovered: names, sizes and times of the files are the same"
    draw(tmp_path / 'pets', 5, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(scan, 'decode_image', fails_once := Failing(scan.decode_image, 3))
        with pytest.raises(KdfastError, match='cannot read .*Input/output error'):
            load(str(tmp_path / 'pets'))
        assert load(str(tmp_path / 'pets'), skip_broken=True).skipped == 1
        fails_once.after = None
        data = load(str(tmp_path / 'pets'))
    assert not data.skipped and len(data.train[1]) + len(data.valid[1]) == 15
    assert not load(str(tmp_path / 'pets'), skip_broken=True).skipped


class Failing:
    "Fail for one image"

    def __init__(self, decode, after):
        self.decode, self.after, self.n = decode, after, 0

    def __call__(self, content, side=None):
        self.n += 1
        return self.decode(OSError(5, 'Input/output error') if self.n == self.after else content, side)


def test_a_broken_image_of_a_frame_is_not_remembered_without_it(tmp_path):
    pd = pytest.importorskip('pandas')
    damaged(tmp_path / 'pets')
    names = sorted(file.relative_to(tmp_path / 'pets').as_posix() for file in (tmp_path / 'pets').glob('*/*.png'))
    frame = pd.DataFrame(dict(name=names, label=[name.partition('/')[0] for name in names]))
    with pytest.raises(KdfastError, match='cannot read ape/001.png'):
        from_frame(frame, tmp_path / 'pets', name='pets')
    sound = frame[~frame.name.isin(['ape/001.png', 'bee/003.png'])]
    assert not from_frame(sound, tmp_path / 'pets', name='pets').skipped
    assert from_frame(frame, tmp_path / 'pets', name='pets', skip_broken=True).skipped == 2


def test_result_counts_skipped_images(tmp_path, kdfast):
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


def test_class_without_readable_images_is_rejected(tmp_path):
    draw(tmp_path / 'pets', 3, seed=0)
    for file in (tmp_path / 'pets' / 'ape').iterdir():
        file.write_bytes(b'')
    with pytest.raises(KdfastError, match='no training image of ape can be read'):
        load(str(tmp_path / 'pets'), skip_broken=True)


SHAPES = [(48, 64), (48, 64, 1), (48, 64, 3), (48, 64, 4), (1, 48, 64), (3, 48, 64)]


@pytest.mark.parametrize('shape', [*SHAPES, (48,), (2, 48, 64), (48, 64, 2), (1, 1, 48, 64), (0, 64), (0, 64, 3), ()])
@pytest.mark.parametrize('dtype', ['uint8', 'bool', 'float32', 'uint16', 'complex64', 'U1'])
def test_the_size_of_an_array_is_that_of_its_decoded_image(shape, dtype):
    image = np.zeros(shape, dtype)
    found = decode_image(image)
    assert pixels.read_size(image) == found.size
    assert (found.size == (64, 48)) == (shape in SHAPES and dtype not in ('complex64', 'U1'))
