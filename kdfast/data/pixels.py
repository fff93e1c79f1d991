"Decode one image to upright pixels, or return what is wrong with it."

import io
import threading
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kdfast.core.format import shape_text
from kdfast.data.bit_depth import choose_range, describe_scaling, read_deep_channels, scale_to_8bit
from kdfast.data.decode_errors import DECODE_ERRORS, GIVEN_ERRORS, error_reason
from kdfast.data.formats import readable_formats
from kdfast.data.jpeg import decode_jpeg, is_usable, read_frame

PIXEL_LIMIT = 2**26  # of an image that is kept at its own size, or decoded beside others
ORIENTATION = 0x0112  # tag of EXIF

LARGE_IMAGE_LOCK = threading.Lock()  # one large image in memory at a time

# How to turn an image upright, by the orientation in its EXIF data
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass
class DecodedImage:
    "The pixels of an image, or what is wrong with it."

    pixels: np.ndarray | None = None  # uint8 (height, width, 3); for more than 8 bits float32 (height, width[, 3])
    problem: str = ''  # Why the image cannot be used
    remarks: tuple | list = ()  # Notes for the user
    low: float | None = None  # Lowest value, only for more than 8 bits
    high: float | None = None  # Highest value, likewise
    size: tuple | None = None  # Width and height in the file
    kind: str = ''  # Format and mode


def decode_8bit(
    content,  # Bytes of a file, an array of pixels, a PIL image, or the error that was raised instead
    side: int | None = None,  # Scale the image to a square of this side
    value_range: tuple[float, float] | None = None,  # For more than 8 bits: values of black and white; None: bit depth
) -> tuple:  # (pixels (height, width, 3) uint8, problem, remarks)
    "Decode a single image to 8 bits per channel."
    image = decode_image(content, side)
    if image.problem or image.low is None:
        return image.pixels, image.problem, list(image.remarks)
    value_range = value_range or choose_range(image.low, image.high, image.kind)
    remarks = [*image.remarks, describe_scaling(value_range, image.kind)]
    return scale_to_8bit(image.pixels, value_range), '', remarks


def decode_image(
    content,  # As of `decode_8bit`
    side: int | None = None,  # Scale the image to a square of this side
) -> DecodedImage:
    "Decode an image with all of its bits. Never raises, whatever the file contains."
    if isinstance(content, Exception):
        return DecodedImage(problem=str(content) or type(content).__name__)
    if isinstance(content, Image.Image):
        return _decode_given(content, side)
    if isinstance(content, np.ndarray):
        return _decode_array(content, side)
    if not side and is_usable() and (image := _decode_usual_jpeg(content)):
        return image
    try:
        with (
            # PIXEL_LIMIT takes the place of Pillow's warning
            warnings.catch_warnings(action='ignore', category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(content), formats=readable_formats()) as image,
        ):
            return _decode_pil(image, side, content)
    except DECODE_ERRORS as e:
        return DecodedImage(problem=error_reason(e, content))


def read_size(
    content,  # A binary file, an array of pixels or a PIL image
) -> tuple[int, int] | None:  # Width and height
    "Return the size of an image without decoding it; None if it cannot be read."
    if isinstance(content, np.ndarray):
        pixels = _channels_last(content)
        return pixels.shape[1::-1] if _is_image(pixels) else None
    if isinstance(content, Image.Image):
        return content.size
    try:
        with content as file, Image.open(file, formats=readable_formats()) as image:
            return image.size
    except DECODE_ERRORS:
        return None


def resize_center_crop(
    image: Image.Image,  # Of any size
    side: int,  # Pixels
) -> Image.Image:
    "Scale an image with antialiasing until its shorter side is `side`, and return the central square."
    short = min(image.size)
    left, top = ((length - short) / 2 for length in image.size)
    return image.resize((side, side), Image.BILINEAR, box=(left, top, left + short, top + short))


def _decode_usual_jpeg(content):
    "Decode a JPEG file faster than Pillow; None for other files"
    frame = read_frame(content)
    if frame is None or frame.width * frame.height > PIXEL_LIMIT:
        return None
    pixels = decode_jpeg(content)
    return None if pixels is None else DecodedImage(pixels, size=frame[:2], kind=f'JPEG {frame.mode}')


def _decode_given(image, side):
    "Decode an image that the caller has opened, and may use again"
    try:
        return _decode_pil(image, side)
    except GIVEN_ERRORS as e:
        return DecodedImage(problem=error_reason(e))


def _decode_pil(image, side, content=None):
    "Decode an image that Pillow has opened; a large one only if no other large one is being decoded"
    size = image.size
    if side and content is not None and image.format in ('JPEG', 'MPO'):  # not the caller's, which would change size
        # decode at 1/8, 1/4 or 1/2 of the size, but never below twice the side
        image.draft(None, (2 * side, 2 * side))
    n_pixels = image.width * image.height
    if n_pixels > PIXEL_LIMIT and not side:
        problem = f'{image.width}×{image.height} is more than {PIXEL_LIMIT:,} pixels: scale it down with --size'
        return DecodedImage(problem=problem, size=size)
    if n_pixels <= PIXEL_LIMIT:
        return _decode_upright(image, side, content, size)
    with LARGE_IMAGE_LOCK:
        return _decode_upright(image, side, content, size)


def _decode_upright(image, side, content, size):
    "Decode an image and turn it upright; `size` is the one in the file"
    remarks = [_frames_remark(image)] if _frames_remark(image) else []
    if image.getexif().get(ORIENTATION, 1) in TRANSPOSES:
        remarks.append('rotated by their EXIF orientation')
    image.load()
    transpose = TRANSPOSES.get(image.getexif().get(ORIENTATION, 1))  # None for a TIFF, which Pillow has turned by now
    channels, problem, deep_remarks = read_deep_channels(image, content)
    if problem:
        return DecodedImage(problem=problem, size=size)
    if channels:
        if transpose is not None:
            channels = [channel.transpose(transpose) for channel in channels]
        remarks += deep_remarks
        return _decode_deep(channels, side, remarks, size, image.format or 'array', image.mode == 'F')
    kind = f'{image.format or "array"} {image.mode}'
    if side:
        image = _reduce(image, side)
    image = _to_rgb(image if transpose is None else image.transpose(transpose), remarks)
    if side:
        image = resize_center_crop(image, side)
    return DecodedImage(np.asarray(image), '', [*remarks, *deep_remarks], size=size, kind=kind)


def _decode_deep(channels, side, remarks, size, file_format, may_be_float):
    "Decode one or three channels of floating-point numbers"
    values = [np.asarray(channel) for channel in channels]
    if not all(np.isfinite(channel).all() for channel in values):
        return DecodedImage(problem='some of its values are not finite', size=size)
    low = float(min(channel.min() for channel in values))
    high = float(max(channel.max() for channel in values))
    is_float = may_be_float and not all((channel == np.rint(channel)).all() for channel in values)
    if side:
        values = [np.asarray(resize_center_crop(channel, side)) for channel in channels]
    pixels = values[0] if len(values) == 1 else np.stack(values, -1)
    return DecodedImage(pixels, '', remarks, low, high, size, f'{file_format} {"float" if is_float else "deep"}')


def _frames_remark(image):
    "A note on a file of several images. The MPO of a phone is one image with previews"
    if image.format == 'MPO' or getattr(image, 'n_frames', 1) == 1:
        return ''
    if image.format == 'TIFF':
        return 'several pages, the first is used'
    if image.format in ('GIF', 'WEBP', 'PNG', 'AVIF', 'FLI'):
        return 'animated, the first frame is used'
    return 'several images in a file, the first is used'


def _reduce(image, side):
    "Shrink a large image by averaging, before anything else needs memory"
    factor = min(image.size) // (2 * side)
    is_large = image.width * image.height > PIXEL_LIMIT
    if factor > 1 and is_large and image.mode in ('L', 'RGB', 'RGBA', 'CMYK'):
        return image.reduce(factor)
    return image


def _to_rgb(image, remarks):
    "Convert to RGB; adds what was done to `remarks`"
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
        remarks.append('transparent, shown on white')
    if image.mode == 'CMYK':
        remarks.append('converted from CMYK')
    return image if image.mode == 'RGB' else image.convert('RGB')  # which would copy it


def _channels_last(pixels):
    "An array as (height, width) or (height, width, channels), if it has the shape of an image"
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def _is_image(pixels):
    "Whether an array has the shape and the type of an image"
    has_shape = pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
    return has_shape and bool(pixels.size) and pixels.dtype.kind in 'buif'


def _decode_array(pixels, side):
    "Decode an array (height, width[, channels]) or (channels, height, width)"
    pixels = _channels_last(pixels)
    if not _is_image(pixels):
        expected = 'height × width, or height × width × 1, 3 or 4 channels'
        return DecodedImage(problem=f'an array of {pixels.dtype} {shape_text(pixels.shape)}: expected {expected}')
    if pixels.dtype == bool:
        pixels = np.uint8(pixels) * 255
    if pixels.dtype == np.uint8:
        return _decode_pil(Image.fromarray(np.ascontiguousarray(pixels)), side)
    floats = pixels[..., None].astype(np.float32) if pixels.ndim == 2 else pixels[..., :3].astype(np.float32)
    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(floats, -1, 0)]
    return _decode_deep(channels, side, [], pixels.shape[1::-1], 'array', pixels.dtype.kind == 'f')
