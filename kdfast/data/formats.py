"What a file is: the formats that are read, by content and by suffix, and the true name of what cannot be read."

import re
from collections.abc import Callable
from functools import cache
from pathlib import PurePosixPath

from PIL import Image

from kdfast.data.archives import READ_ERRORS

# would start other programs, or are stubs without a decoder
UNSAFE = {'EPS', 'WMF', 'FPX', 'MIC', 'BUFR', 'GRIB', 'HDF5', 'MPEG'}


PLUGINS = {
    '.heic': ('HEIC', 'pillow-heif', 'pillow_heif', 'register_heif_opener'),
    '.heif': ('HEIC', 'pillow-heif', 'pillow_heif', 'register_heif_opener'),
    '.hif': ('HEIC', 'pillow-heif', 'pillow_heif', 'register_heif_opener'),
    '.jxl': ('JPEG XL', 'pillow-jxl-plugin', 'pillow_jxl', None),
}


COMMON = {
    '.jpg',
    '.jpeg',
    '.jpe',
    '.jfif',
    '.png',
    '.apng',
    '.webp',
    '.bmp',
    '.dib',
    '.gif',
    '.tif',
    '.tiff',
    '.ppm',
    '.pgm',
    '.pbm',
    '.pnm',
    '.pfm',
    '.jp2',
    '.j2k',
    '.avif',
    *PLUGINS,
}  # what needs no look into Pillow


OTHER = {  # suffix: what it is, and what to do with it
    '.dcm': 'DICOM: save it as a 16-bit PNG',
    '.dicom': 'DICOM: save it as a 16-bit PNG',
    '.nii': 'NIfTI volumes: save slices as 16-bit PNG',
    '.svg': 'vector graphics: render them as PNG',
    '.pdf': 'PDF: render the pages as PNG',
    '.eps': 'PostScript: render it as PNG',
    '.ps': 'PostScript: render it as PNG',
    '.wmf': 'vector graphics: render them as PNG',
    '.emf': 'vector graphics: render them as PNG',
    **dict.fromkeys(
        ('.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.rw2', '.raf', '.raw', '.pef', '.srw'),
        'camera raw: develop it to JPEG or PNG',
    ),
    **dict.fromkeys(('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg'), 'videos: extract their frames'),
    **dict.fromkeys(
        ('.zip', '.tar', '.gz', '.tgz', '.bz2', '.xz', '.zst', '.7z', '.rar'),
        'archives: pass one by its path, or unpack it',
    ),
    **dict.fromkeys(
        (
            '.npy',
            '.npz',
            '.mat',
            '.h5',
            '.hdf5',
            '.hdf',
            '.pkl',
            '.pickle',
            '.pt',
            '.pth',
            '.bin',
            '.tfrecord',
            '.tfrecords',
            '.lmdb',
            '.mdb',
            '.rec',
        ),
        'arrays: see the layouts in docs/data.md, or pass arrays from Python',
    ),
    **dict.fromkeys(
        (
            '.txt',
            '.csv',
            '.tsv',
            '.json',
            '.jsonl',
            '.xml',
            '.yaml',
            '.yml',
            '.md',
            '.rst',
            '.html',
            '.htm',
            '.py',
            '.ipynb',
            '.log',
            '.ini',
            '.cfg',
            '.toml',
            '.db',
            '.sqlite',
            '.xlsx',
            '.xls',
            '.ods',
            '.doc',
            '.docx',
            '.rtf',
            '.lnk',
            '.url',
            '.sh',
            '.bat',
            '.exe',
            '.m',
            '.c',
            '.names',
            '.cls',
            '.parquet',
            '.arrow',
            '.safetensors',
            '.onnx',
            '.bib',
            '.tex',
            '.ds_store',
            '.sha256',
            '.md5',
            '.idx',
            '.index',
            '.thm',
            '.xmp',
            '.aae',
        ),
        '',
    ),
}


MAGIC = re.compile(
    rb'\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM.{4}\0\0\0\0|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF.{4}WEBP|'
    rb'.{4}ftypavi[fs]|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6fF]\s|8BPS\0|qoif|'
    rb'.{4}ftyp(?:hei|hev|mif1|msf1)|\0\0\0\x0cJXL |\xff\x0a',
    re.S,
)


NAMES = {  # what a file is that is no image which Pillow reads
    rb'$': 'an empty file',
    rb'\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg': 'SVG: render it as PNG',
    rb'(?i)\s*<(?:!doctype|html|head|\?xml)': 'no image but a web page: download the image again',
    rb'version https://git-lfs': 'no image but a Git LFS pointer: fetch the file with git lfs pull',
    rb'%PDF': 'PDF: render the page as PNG',
    rb'%!PS|\xc5\xd0\xd3\xc6': 'PostScript: render it as PNG',
    rb'.{4}ftyp(?:hei|hev|mif1|msf1)': 'HEIC',
    rb'\0\0\0\x0cJXL |\xff\x0a': 'JPEG XL',
    rb'.{128}DICM': 'DICOM: save it as a 16-bit PNG',
    rb'\x93NUMPY': 'no image but a NumPy array: see docs/data.md',
    rb'.{4}ftyp': 'no image but a video: extract its frames',
    rb'\x1a\x45\xdf\xa3|RIFF.{4}AVI': 'no image but a video: extract its frames',
    rb'PK\x03\x04': 'no image but a zip archive: unpack it',
    rb'\x1f\x8b': 'no image but packed with gzip: unpack it',
    rb'\s*[{\[]': 'no image but JSON',
    rb'\0+$': 'no image but zeros: copy it again',
}


@cache
def formats() -> tuple[str, ...]:
    "The formats that Pillow reads here, without those that start other programs; with what its installed plugins add."
    register_plugins()
    Image.init()
    return tuple(sorted(name for name in Image.OPEN if name not in UNSAFE))


def register_plugins():
    for _, _, module, register in set(PLUGINS.values()):
        try:
            plugin = __import__(module)
        except ImportError:
            continue
        if register:
            getattr(plugin, register)()


@cache
def suffixes() -> frozenset[str]:
    "Suffixes of image files."
    known = formats()
    return frozenset(
        {suffix for suffix, name in Image.registered_extensions().items() if name in known} - OTHER.keys() | COMMON
    )


def is_image(
    name: str,  # Of a file
    open_file: Callable,  # To look into it where the name does not tell
) -> bool:
    "Whether a file is an image: by its suffix, else by how it begins."
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in COMMON:
        return True
    if suffix in OTHER:
        return False
    if suffix in suffixes():
        return True
    try:
        with open_file() as f:
            return bool(MAGIC.match(f.read(64)))
    except READ_ERRORS:
        return False  # it is reported as left out


def identify(
    content: bytes,  # Of a file that is no readable image
) -> str:
    "What the file is instead, and what to do."
    for magic, said in NAMES.items():
        if re.match(magic, content[:4096], re.S):
            package = next((package for name, package, *_ in PLUGINS.values() if name == said), None)
            return f'{said}: pip install {package}, or save it as JPEG or PNG' if package else said
    if MAGIC.match(content):
        return 'it begins like an image, but breaks off, or is of a kind that Pillow does not read: save it as PNG'
    try:
        text = content[:512].decode()
    except UnicodeDecodeError:
        text = ''
    return 'no image but text' if text and all(c.isprintable() or c.isspace() for c in text) else 'no image'


def remedy(
    suffix: str,  # Of files that are no images
) -> str:
    "What such files are and what to do with them, or nothing."
    return OTHER.get(suffix, '')
