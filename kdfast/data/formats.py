"Recognize image files by suffix and content, and name the format of files that cannot be read."

import re
from collections.abc import Callable
from functools import cache
from posixpath import splitext  # many times as fast as pathlib, for a million files
from typing import NamedTuple

from PIL import Image

from kdfast.data.files import READ_ERRORS

USUAL_FORMATS = 'JPEG', 'PNG'
# Formats of Pillow that start other programs, or have no decoder
EXCLUDED_FORMATS = frozenset('EPS WMF FPX MIC BUFR GRIB HDF5 MPEG'.split())


class Plugin(NamedTuple):
    "A package that adds a format to Pillow."

    format: str
    package: str  # To install
    module: str  # To import
    register: str | None  # Function to call after the import


HEIF = Plugin('HEIC', 'pillow-heif', 'pillow_heif', 'register_heif_opener')
JPEG_XL = Plugin('JPEG XL', 'pillow-jxl-plugin', 'pillow_jxl', None)
PLUGINS = {'.heic': HEIF, '.heif': HEIF, '.hif': HEIF, '.jxl': JPEG_XL}

# Suffixes of images that are known without importing all formats of Pillow
COMMON_SUFFIXES = frozenset(
    '.jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .ppm .pgm .pbm .pnm .pfm .jp2 .j2k .avif'.split()
) | frozenset(PLUGINS)

# Suffixes of other files: their format, and what to do with them
OTHER_FORMATS = {
    '.dcm .dicom': 'DICOM: save it as a 16-bit PNG',
    '.nii': 'NIfTI volumes: save slices as 16-bit PNG',
    '.svg .wmf .emf': 'vector graphics: render them as PNG',
    '.pdf': 'PDF: render the pages as PNG',
    '.eps .ps': 'PostScript: render it as PNG',
    '.dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .raw .pef .srw': 'camera raw: develop it to JPEG or PNG',
    '.mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg': 'videos: extract their frames',
    '.zip .tar .gz .tgz .bz2 .xz .zst .7z .rar': 'archives: pass one by its path, or unpack it',
    '.npz': 'arrays: pass one by its path',
    '.npy .mat .h5 .hdf5 .hdf .pkl .pickle .pt .pth .bin .tfrecord .tfrecords .lmdb .mdb .rec': (
        'arrays: see the layouts in docs/data.md, or pass arrays from Python'
    ),
    '.txt .csv .tsv .json .jsonl .xml .yaml .yml .md .rst .html .htm .py .ipynb .log .ini .cfg .toml .db .sqlite .xlsx '
    '.xls .ods .doc .docx .rtf .lnk .url .sh .bat .exe .m .c .names .cls .parquet .arrow .safetensors .onnx .bib .tex '
    '.ds_store .sha256 .md5 .idx .index .thm .xmp .aae': '',
}
REMEDY_OF_SUFFIX = {suffix: remedy for suffixes, remedy in OTHER_FORMATS.items() for suffix in suffixes.split()}

# How images begin
IMAGE_START = re.compile(
    rb'\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM.{4}\0\0\0\0|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF.{4}WEBP|'
    rb'.{4}ftypavi[fs]|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6fF]\s|8BPS\0|qoif|'
    rb'.{4}ftyp(?:hei|hev|mif1|msf1)|\0\0\0\x0cJXL |\xff\x0a',
    re.S,
)

# How a file begins that was not downloaded: what it is, and what to do
WRONG_DOWNLOADS = {
    rb'(?i)\s*<(?:!doctype|html|head|\?xml)': 'a web page: download the {} again',
    rb'version https://git-lfs': 'a Git LFS pointer: fetch the file with git lfs pull',
}

# How other files begin: what they are, and what to do with them
OTHER_STARTS = {
    rb'$': 'an empty file',
    rb'\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg': 'SVG: render it as PNG',
    **{start: f'not an image but {name.format("image")}' for start, name in WRONG_DOWNLOADS.items()},
    rb'%PDF': 'PDF: render the page as PNG',
    rb'%!PS|\xc5\xd0\xd3\xc6': 'PostScript: render it as PNG',
    rb'.{4}ftyp(?:hei|hev|mif1|msf1)': HEIF.format,
    rb'\0\0\0\x0cJXL |\xff\x0a': JPEG_XL.format,
    rb'.{128}DICM': 'DICOM: save it as a 16-bit PNG',
    rb'\x93NUMPY': 'not an image but a NumPy array: see docs/data.md',
    rb'.{4}ftyp': 'not an image but a video: extract its frames',
    rb'\x1a\x45\xdf\xa3|RIFF.{4}AVI': 'not an image but a video: extract its frames',
    rb'PK\x03\x04': 'not an image but a zip archive: unpack it',
    rb'\x1f\x8b': 'not an image but a gzip file: unpack it',
    rb'\s*[{\[]': 'not an image but JSON',
    rb'\0+$': 'not an image but zeros: copy it again',
}


@cache
def readable_formats() -> tuple[str, ...]:
    "Return the formats that Pillow and its plugins read without other programs, usual ones first."
    for plugin in (HEIF, JPEG_XL):
        _register(plugin)
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - EXCLUDED_FORMATS, key=lambda name: (name not in USUAL_FORMATS, name)))


def _register(plugin):
    try:
        module = __import__(plugin.module)
    except ImportError:
        return
    if plugin.register:
        getattr(module, plugin.register)()


@cache
def image_suffixes() -> frozenset[str]:
    "Return the suffixes of image files."
    readable = readable_formats()  # also registers the suffixes of plugins
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in readable}
    return frozenset(known - REMEDY_OF_SUFFIX.keys() | COMMON_SUFFIXES)


def is_image(
    name: str,  # Of a file
    open_file: Callable,  # Return the file, opened for binary reading; called if the name is not enough
) -> bool:
    "Return whether a file is an image: by its suffix, else by its first bytes."
    suffix = splitext(name)[1].lower()
    if suffix in COMMON_SUFFIXES:
        return True
    if suffix in REMEDY_OF_SUFFIX:
        return False
    if suffix in image_suffixes():
        return True
    try:
        with open_file() as file:
            return bool(IMAGE_START.match(file.read(64)))
    except READ_ERRORS:
        return False  # reported with the files that are not images


def identify(
    content: bytes,  # Of a file that cannot be read as an image
) -> str:
    "Return what a file is instead of an image, and what to do."
    for start, name in OTHER_STARTS.items():
        if re.match(start, content[:4096], re.S):
            package = next((plugin.package for plugin in PLUGINS.values() if plugin.format == name), None)
            return f'{name}: pip install {package}, or save it as JPEG or PNG' if package else name
    if IMAGE_START.match(content):
        return 'it starts like an image, but is truncated, or of a kind that Pillow does not read: save it as PNG'
    try:
        text = content[:512].decode()
    except UnicodeDecodeError:
        text = ''
    is_text = text and all(c.isprintable() or c.isspace() for c in text)
    return 'not an image but text' if is_text else 'not an image'


def wrong_download(
    content: bytes,  # Of a file of any kind
) -> str:
    "Return what was downloaded instead of the file, and what to do; empty if it is something else."
    return next((name.format('file') for start, name in WRONG_DOWNLOADS.items() if re.match(start, content[:512])), '')


def describe_suffix(
    suffix: str,  # Of files that are not images
) -> str:
    "Return the format of such files and what to do with them, or an empty string."
    return REMEDY_OF_SUFFIX.get(suffix, '')
