"Images of more than 8 bits per channel: read all bits, choose one range of values, scale to 8 bits."

import numpy as np
from PIL import Image

from kdfast.core.errors import KdfastError

DEPTHS = (8, 10, 12, 14, 16)  # usual bits per channel of cameras and scanners
BITS_PER_SAMPLE = 258  # tag of a TIFF
PNG_DEPTH_BYTE = 24  # position of the bit depth in a PNG file


def read_deep_channels(
    image: Image.Image,  # Opened by Pillow
    content: bytes | None,  # The file of the image, if any
) -> tuple[list[Image.Image], str, list[str]]:  # (channels of mode F, problem, remarks)
    "Return the channels of an image of more than 8 bits; no channels for an image of 8 bits."
    if image.mode == 'F' or image.mode.startswith('I'):
        return [Image.fromarray(np.asarray(image).astype(np.float32))], '', []
    if image.format == 'PNG' and content and content[PNG_DEPTH_BYTE] == 16:
        return _deep_png_channels(content)  # Pillow keeps only the upper 8 bits of colors
    if image.format != 'TIFF' or 16 not in image.tag_v2.get(BITS_PER_SAMPLE, ()):
        return [], '', []
    if np.asarray(image).max() >= 128:
        return [], '', ['16 bits per channel, of which the upper 8 are used']
    return [], 'its colors use the lower of 16 bits per channel, which Pillow drops: save it as PNG, or in 8 bits', []


def _deep_png_channels(content):
    import torch
    from torchvision.io import ImageReadMode, decode_png

    try:
        tensor = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError as e:
        return [], str(e).splitlines()[0], []
    channels = tensor.numpy().astype(np.float32)
    is_transparent = len(channels) in (2, 4)
    color = channels[:1] if len(channels) < 3 else channels[:3]
    remarks = ['more than 8 bits, transparency is ignored'] if is_transparent else []
    return [Image.fromarray(channel) for channel in color], '', remarks


def choose_range(
    low: float,  # Lowest value of all images
    high: float,  # Highest value
    kind: str,  # Of the images; it ends in "float" if any image has values that are not whole
) -> tuple[float, float]:  # Values that become black and white
    """Return the range of values to scale from.

    For whole numbers, the smallest usual bit depth that holds them. For others, 0 to 1 if they fit, else their range.
    """
    if kind.endswith('float'):
        return (0.0, 1.0) if low >= 0 and 0.25 < high <= 1 else (low, high)
    if low < 0 or high >= 2 ** DEPTHS[-1]:
        return min(low, 0.0), high
    return 0.0, float(2 ** next(bits for bits in DEPTHS if high < 2**bits) - 1)


def scale_to_8bit(
    pixels: np.ndarray,  # float32 (height, width[, 3])
    value_range: tuple[float, float],  # Values that become black and white
) -> np.ndarray:  # uint8 (height, width, 3)
    "Scale values to 0 … 255 and round them; values outside the range are clipped."
    low, high = value_range
    scaled = ((pixels.astype(float) - low) * 255 / ((high - low) or 1)).round().clip(0, 255).astype(np.uint8)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, -1)


def describe_scaling(
    value_range: tuple[float, float],  # Values that became black and white
    kind: str,  # Of the image
) -> str:
    "Return a note on how values were scaled."
    low, high = value_range
    bits = next((bits for bits in DEPTHS if value_range == (0, 2**bits - 1)), None)
    values = f'{bits} bits' if bits else 'whole numbers'
    if kind.endswith('float'):
        values = 'floating-point values'
    return f'scaled from {values} ({low:g} … {high:g}) to 8 bits'


def parse_range(
    text: str,  # LOW:HIGH
) -> tuple[float, float]:
    "Return the values that become black and white. Raises KdfastError for other text."
    try:
        low, high = map(float, text.split(':'))
    except ValueError:
        low = high = 0.0
    if not low < high < float('inf') or low == -float('inf'):
        raise KdfastError(f'--range {text}: expected LOW:HIGH, such as 0:4095')
    return low, high
