"One image from bytes to pixels: the right way up, 8 bits a channel, or what is wrong with it."

import io
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdfast.core.errors import KdfastError
from kdfast.data.formats import formats, identify

PIXEL_LIMIT = 2**26  # of an image that is kept at its own size, or decoded beside others
DEPTHS = (8, 10, 12, 14, 16)  # bits a channel that cameras and scanners give


DECODE_ERRORS = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    Image.DecompressionBombError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
)


BROKEN_OFF = (
    'truncated',
    'cannot identify',
    'premature',
    'unrecognized data stream',
    'broken data stream',
    'not enough',
    'unexpected end',
)


LARGE = threading.Lock()  # one large image in memory at a time


# by orientation of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # tags


@dataclass
class Picture:
    "An image as it was found, or what is wrong with it."

    pixels: np.ndarray | None = None  # uint8 (height, width, 3); of more than 8 bits float32 (height, width[, 3])
    problem: str = ''  # Why it cannot be used
    remarks: tuple | list = ()  # What a user should know about it
    low: float | None = None  # The lowest value, of more than 8 bits
    high: float | None = None  # The highest
    size: tuple | None = None  # Its own width and height
    kind: str = ''  # Its format and mode


def decoded(
    content,  # A file's bytes, an array of pixels or a PIL image; or the error in their place
    side: int | None = None,  # Scale it to a square of this side
    span: tuple[float, float]
    | None = None,  # Values that become black and white, of more than 8 bits; by its own bit depth
) -> tuple:  # Pixels (height, width, 3) uint8, what is wrong, what is remarkable
    "One image by itself."
    found = picture(content, side)
    if found.problem or found.low is None:
        return found.pixels, found.problem, list(found.remarks)
    span = span or span_of(found.low, found.high, found.kind)
    return to_bytes(found.pixels, span), '', [*found.remarks, scaling(span, found.kind)]


def picture(
    content,  # As of `decoded`
    side: int | None = None,  # Scale it to a square of this side
) -> Picture:
    "The image, in as many bits as it has. Never raises for what a file may hold."
    if isinstance(content, Exception):
        return Picture(problem=str(content) or type(content).__name__)
    if isinstance(content, Image.Image):
        return of_image(content, side)
    if isinstance(content, np.ndarray):
        return of_array(content, side)
    try:
        # the limit is ours
        with (
            warnings.catch_warnings(action='ignore', category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(content), formats=formats()) as image,
        ):
            return of_image(image, side, content)
    except DECODE_ERRORS as e:
        return Picture(problem=cause(e, content))


def picture_size(
    content,  # A binary file, an array of pixels or a PIL image
) -> tuple[int, int] | None:  # Width and height
    "The size of an image, without decoding it; None where it is none."
    if isinstance(content, np.ndarray):
        return content.shape[-2::-1] if content.ndim == 2 else content.shape[1::-1]
    if isinstance(content, Image.Image):
        return content.size
    try:
        with content as f, Image.open(f, formats=formats()) as image:
            return image.size
    except DECODE_ERRORS:
        return None


def cause(error, content):
    "Why a file cannot be decoded, in words that help"
    if isinstance(error, Image.DecompressionBombError):
        return f'larger than the {2 * Image.MAX_IMAGE_PIXELS:,} pixels that Pillow allows: scale it down'
    if isinstance(error, UnidentifiedImageError):
        return identify(content)
    said = str(error) or type(error).__name__
    return (
        f'it breaks off: {said}'
        if any(words in said.lower() for words in BROKEN_OFF) or isinstance(error, EOFError)
        else said
    )


def of_image(image, side, content=None):
    "The picture that Pillow has opened"
    size = image.size
    if side and image.format in ('JPEG', 'MPO'):
        image.draft(
            None, (2 * side, 2 * side)
        )  # decodes it at an eighth, a quarter or half, never below twice the side
    n_pixels = image.width * image.height
    if n_pixels > PIXEL_LIMIT and not side:
        return Picture(
            problem=f'{image.width}×{image.height} is more than {PIXEL_LIMIT:,} pixels: give a --size to scale it down',
            size=size,
        )
    if n_pixels <= PIXEL_LIMIT:
        return upright(image, side, content, size)
    with LARGE:
        return upright(image, side, content, size)


def upright(image, side, content, size):
    remarks = [several(image)] if several(image) else []
    oriented = image.getexif().get(ORIENTATION, 1) in TURNS
    image.load()
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))  # of a TIFF Pillow has turned it by now
    if oriented:
        remarks.append('turned as their EXIF data say')
    channels, problem, more = channels_of(image, content)
    if problem:
        return Picture(problem=problem, size=size)
    if channels:
        if turn is not None:
            channels = [channel.transpose(turn) for channel in channels]
        return of_channels(channels, side, [*remarks, *more], size, image.format or 'array', image.mode == 'F')
    kind = f'{image.format or "array"} {image.mode}'
    if side:
        image = reduced(image, side)
    found = colors(image if turn is None else image.transpose(turn), remarks)
    if side:
        found = square(found, side)
    return Picture(np.asarray(found), '', [*remarks, *more], size=size, kind=kind)


def of_channels(channels, side, remarks, size, kind, floats):
    "From one or three channels of floating-point numbers"
    values = [np.asarray(channel) for channel in channels]
    if not all(np.isfinite(channel).all() for channel in values):
        return Picture(problem='some of its values are no finite numbers', size=size)
    low, high = float(min(channel.min() for channel in values)), float(max(channel.max() for channel in values))
    floats = floats and not all((channel == np.rint(channel)).all() for channel in values)
    if side:
        values = [np.asarray(square(channel, side)) for channel in channels]
    pixels = values[0] if len(values) == 1 else np.stack(values, -1)
    return Picture(pixels, '', remarks, low, high, size, f'{kind} {"float" if floats else "deep"}')


def several(image):
    "What to say of a file of several pictures. A phone's MPO has one, and what its camera made of it"
    if image.format == 'MPO' or getattr(image, 'n_frames', 1) == 1:
        return ''
    if image.format == 'TIFF':
        return 'several pages, the first is used'
    return (
        'animated, the first frame is used'
        if image.format in ('GIF', 'WEBP', 'PNG', 'AVIF', 'FLI')
        else 'several pictures in a file, the first is used'
    )


def channels_of(image, content):
    "(channels of floating-point numbers, what is wrong, remarks) of an image; no channels where it has 8 bits"
    if image.mode == 'F' or image.mode.startswith('I'):
        return [Image.fromarray(np.asarray(image).astype(np.float32))], '', []
    if image.format == 'PNG' and content and content[24] == 16:
        return channels_of_png(content)  # of colors Pillow keeps the upper 8 bits alone
    if image.format != 'TIFF' or 16 not in image.tag_v2.get(BITS_PER_SAMPLE, ()):
        return [], '', []
    if np.asarray(image).max() >= 128:
        return [], '', ['of 16 bits a channel, the upper 8 are used']
    return [], 'its colors use the lower of 16 bits a channel, which Pillow drops: save it as PNG, or in 8 bits', []


def channels_of_png(content):
    import torch
    from torchvision.io import ImageReadMode, decode_png

    try:
        found = (
            decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
            .numpy()
            .astype(np.float32)
        )
    except RuntimeError as e:
        return [], str(e).splitlines()[0], []
    color, transparent = found[:1] if len(found) < 3 else found[:3], len(found) in (2, 4)
    return (
        [Image.fromarray(channel) for channel in color],
        '',
        ['of more than 8 bits, transparency is ignored'] if transparent else [],
    )


def reduced(image, side):
    "A large image made smaller by averaging, before anything else is done with it"
    factor = min(image.size) // (2 * side)
    return (
        image.reduce(factor)
        if factor > 1 and image.width * image.height > PIXEL_LIMIT and image.mode in ('L', 'RGB', 'RGBA', 'CMYK')
        else image
    )


def colors(image, remarks):
    "Red, green and blue; adds what was done to `remarks`"
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
        remarks.append('transparent, shown on white')
    if image.mode == 'CMYK':
        remarks.append('converted from CMYK')
    return image.convert('RGB')


def square(
    image: Image.Image,  # Of any size
    side: int,  # Pixels
) -> Image.Image:
    "The image, scaled so that its shorter side is `side`, antialiased; and of that the central square."
    short = min(image.size)
    left, top = ((length - short) / 2 for length in image.size)
    return image.resize((side, side), Image.BILINEAR, box=(left, top, left + short, top + short))


def of_array(pixels, side):
    "From an array (height, width[, channels]) or (channels, height, width)"
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if (
        not (pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[-1] in (3, 4))
        or not pixels.size
        or pixels.dtype.kind not in 'buif'
    ):
        return Picture(
            problem=f'an array of {pixels.dtype} {"×".join(map(str, pixels.shape))}: expected height × '
            'width, or height × width × 1, 3 or 4 channels'
        )
    if pixels.dtype == bool:
        pixels = np.uint8(pixels) * 255
    if pixels.dtype == np.uint8:
        return of_image(Image.fromarray(np.ascontiguousarray(pixels)), side)
    floats = pixels[..., None].astype(np.float32) if pixels.ndim == 2 else pixels[..., :3].astype(np.float32)
    return of_channels(
        [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(floats, -1, 0)],
        side,
        [],
        pixels.shape[1::-1],
        'array',
        pixels.dtype.kind == 'f',
    )


# More than 8 bits a channel


def span_of(
    low: float,  # The lowest value of all images
    high: float,  # The highest
    kind: str,  # Of a picture; of all, one that is of floats if any is
) -> tuple[float, float]:  # What becomes black, and what white
    "Of whole numbers the smallest usual bit depth that holds them; of others 0 to 1 where they fit, else their range."
    if kind.endswith('float'):
        return (0.0, 1.0) if low >= 0 and 0.25 < high <= 1 else (low, high)
    if low < 0 or high >= 2 ** DEPTHS[-1]:
        return min(low, 0.0), high
    return 0.0, float(2 ** next(bits for bits in DEPTHS if high < 2**bits) - 1)


def to_bytes(
    pixels: np.ndarray,  # float32 (height, width[, 3])
    span: tuple[float, float],  # What becomes black, and what white
) -> np.ndarray:  # uint8 (height, width, 3)
    "Values from black to white as 0 … 255, rounded; what lies outside is cut."
    low, high = span
    scaled = ((pixels.astype(float) - low) * 255 / ((high - low) or 1)).round().clip(0, 255).astype(np.uint8)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, -1)


def scaling(span, kind):
    "What was done, in words"
    bits = next((bits for bits in DEPTHS if span == (0, 2**bits - 1)), None)
    what = 'floating-point values' if kind.endswith('float') else f'{bits} bits' if bits else 'whole numbers'
    return f'scaled from {what} ({span[0]:g} … {span[1]:g}) to 8 bits'


def parse_span(
    said: str,  # LOW:HIGH
) -> tuple[float, float]:
    "What becomes black, and what white. Raises KdfastError."
    try:
        low, high = map(float, said.split(':'))
    except ValueError:
        low = high = 0.0
    if not low < high < float('inf') or low == -float('inf'):
        raise KdfastError(f'--range {said}: expected LOW:HIGH, such as 0:4095')
    return low, high
