"What decoders raise for an image that cannot be read, and what that means to the user."

import struct
import zlib

from PIL import Image, UnidentifiedImageError

from kdfast.data.formats import identify

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
GIVEN_ERRORS = (*DECODE_ERRORS, AssertionError, AttributeError)  # the latter for an image whose file is closed

# Words in the errors of Pillow for a file that is not complete
TRUNCATED = (
    'truncated',
    'cannot identify',
    'premature',
    'unrecognized data stream',
    'broken data stream',
    'not enough',
    'unexpected end',
)


def error_reason(
    error: Exception,  # What a decoder raised
    content: bytes | None = None,  # The file, if it is known
) -> str:
    "Return why an image cannot be decoded, and what to do."
    if isinstance(error, Image.DecompressionBombError):
        return f'more than the {2 * Image.MAX_IMAGE_PIXELS:,} pixels that Pillow allows: scale it down'
    if isinstance(error, UnidentifiedImageError) and content is not None:
        return identify(content)
    message = str(error) or type(error).__name__
    if isinstance(error, AssertionError | AttributeError) or 'closed' in message:
        return 'its file was closed before its pixels were read: load or copy the image first'
    truncated = isinstance(error, EOFError) or any(words in message.lower() for words in TRUNCATED)
    return f'truncated: {message}' if truncated else message
