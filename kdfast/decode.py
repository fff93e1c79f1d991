"The images of a folder or an archive: found, checked and decoded, every one of them before anything trains."
import io
import sys
import tarfile
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdfast.errors import KdfastError

SUFFIXES = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff'}
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF')
VALID_NAMES = ('valid', 'val', 'test')  # the first of these that is there is the validation set
LAYOUT = 'expected train/<class>/<image> beside test|valid|val/<class>/<image>'
FILE_LIMIT,PIXEL_LIMIT = 2**26,2**26 # bytes and pixels of an image
ARCHIVE_LIMIT,MEMBER_LIMIT = 20 * 2**30,2_000_000 # bytes that an archive unpacks to, and files that it holds
SHOWN = 10 # names in an error
CHUNK = 256 # images that are read, but not yet decoded


def decode(
    path:Path, # A folder or an archive
    folder:Path, # Where the arrays go, <split>_images.npy and <split>_labels.npy
) -> tuple[list[str],list[str]]: # The classes, and what a user should know about the images
    """Decode every image of `path`.

    Raises KdfastError, naming the files, for another layout, a class that one split lacks, images that do not decode
    or differ in size, and an archive that could do harm.
    """
    notes = Notes()
    with entries(path) as files:
        splits = layout(path, files, notes)
        classes = classes_of(path, splits, notes)
        with progress(path, splits) as advance, warnings.catch_warnings(action='ignore', category=Image.DecompressionBombWarning): # the limit is ours
            unreadable = [bad for split,listing in splits.items() for bad in decode_split(path, listing, classes, folder, split, notes, advance)]
    if unreadable: raise KdfastError(f'{path}: {listed(unreadable, "; ")} {"is" if len(unreadable) == 1 else "are"} not to be read: replace or remove')
    return classes,notes.said()


def listed(names, between=', '):
    "The first few of many"
    return between.join(names[:SHOWN]) + (f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else '')


class Notes:
    "What is no error, but nothing to be silent about either: how often, and one example."
    def __init__(self): self.found = defaultdict(list)

    def add(self, what, name): self.found[what].append(name)

    def said(self): return [f'{what}: {len(names):,} ({names[0]}{", …" if len(names) > 1 else ""})' for what,names in self.found.items()]


@contextmanager
def progress(path, splits):
    "On a terminal one live line; elsewhere a plain one a split. Gives what is to be called with the number of images done"
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        for split,listing in splits.items(): print(f'kdfast: reading {len(listing):,} images of {split} from {path}', file=sys.stderr, flush=True)
        yield lambda n: None
    else:
        columns = TextColumn('reading {task.description}'),BarColumn(bar_width=None),MofNCompleteColumn(),TimeRemainingColumn(compact=True)
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            task = bar.add_task(path.name, total=sum(map(len, splits.values())))
            yield partial(bar.advance, task)


def decode_split(path, listing, classes, folder, split, notes, advance) -> Iterator[str]:
    "What of it cannot be read. Rows are in order of class and name, whatever order the source gives them in"
    order = {name: row for row,name in enumerate(sorted(name for name,*_ in listing))}
    labels = np.empty(len(listing), np.int64)
    images = first = None
    with ThreadPoolExecutor() as pool: # decoding leaves Python's lock; reading an archive stays with this thread
        for start in range(0, len(listing), CHUNK):
            some = listing[start:start + CHUNK]
            contents = [read(open_file) for _,_,open_file in some]
            for (name,label,_),(image,problem,remarks) in zip(some, pool.map(decoded, contents)):
                if problem: yield f'{name} ({problem})'
                else:
                    if images is None:
                        first = name
                        images = np.lib.format.open_memmap(folder/f'{split}_images.npy', 'w+', np.uint8, (len(listing), *image.shape))
                    if image.shape != images.shape[1:]:
                        raise KdfastError(f'{path}: images differ in size: {first} is {size(images[0])}, {name} is {size(image)}; '
                                          'bring them to one size first')
                    images[order[name]],labels[order[name]] = image,classes.index(label)
                for remark in remarks: notes.add(remark, name)
            advance(len(some))
    if images is not None: images.flush()
    np.save(folder/f'{split}_labels.npy', labels)


def size(image): return f'{image.shape[-2]}×{image.shape[-3]}'


# One image

READ_ERRORS = (OSError, EOFError, zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError) # the last two: a zip's encryption, its compression
DECODE_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError)


def read(open_file):
    "The file's bytes, or the error"
    try:
        with open_file() as f: content = f.read(FILE_LIMIT + 1)
    except READ_ERRORS as e: return e
    return content if len(content) <= FILE_LIMIT else ValueError(f'more than {FILE_LIMIT/2**20:.0f} MB')


def decoded(content):
    "(pixels, what is wrong, what is remarkable) of a file's bytes; or of the error in their place"
    if isinstance(content, Exception): return None,str(content),[]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image: return *colours(image),
    except DECODE_ERRORS as e: return None,'no image' if isinstance(e, UnidentifiedImageError) else str(e),[]


def colours(image):
    "8 bits a channel, red, green and blue, the right way up"
    remarks = []
    if image.width*image.height > PIXEL_LIMIT: return None,f'{image.width}×{image.height} is more than {PIXEL_LIMIT:,} pixels',remarks
    if getattr(image, 'n_frames', 1) > 1: remarks.append('animated, the first picture is taken')
    upright = ImageOps.exif_transpose(image)
    if upright.size != image.size or image.getexif().get(0x0112, 1) != 1: remarks.append('turned as their EXIF data say')
    if upright.mode == 'F': return None,'its pixels are floating-point numbers; bring them to 8 bits',remarks
    if upright.mode.startswith('I'):
        deep = np.asarray(upright)
        if deep.min() < 0 or deep.max() > 65535: return None,'its pixels have more than 16 bits; bring them to 8',remarks
        upright = Image.fromarray((deep/257).round().astype(np.uint8))
        remarks.append('scaled from 16 bits to 8')
    if upright.has_transparency_data:
        upright = Image.alpha_composite(Image.new('RGBA', upright.size, 'white'), upright.convert('RGBA'))
        remarks.append('transparent, shown on white')
    if upright.mode == 'CMYK': remarks.append('converted from CMYK')
    return np.asarray(upright.convert('RGB')),'',remarks


# Folders and archives

@contextmanager
def entries(
    path:Path, # A folder or an archive
) -> Iterator[list[tuple[str,Callable]]]:
    """(name, opener) of every file, in the order in which the source is read fastest; nothing is unpacked to disk.

    Raises KdfastError for an archive that does not read, or holds what no archive of images does.
    """
    try:
        if path.is_dir(): yield [(name, partial(open, file, 'rb')) for name,file in images_of_folder(path)]
        elif path.suffix.lower() == '.zip':
            with zipfile.ZipFile(path) as z:
                yield members(path, ((i.filename, i.file_size, not is_special(i.external_attr >> 16), partial(z.open, i))
                                     for i in z.infolist() if not i.is_dir()))
        else:
            with tarfile.open(path) as t: yield members(path, ((m.name, m.size, m.isfile(), partial(t.extractfile, m)) for m in t if not m.isdir()))
    except (tarfile.TarError, zipfile.BadZipFile, LZMAError, zlib.error, EOFError) as e:
        raise KdfastError(f'{path} is not a readable archive ({e}): fetch it again') from e


def is_special(mode):
    "Neither a plain file nor unsaid: a link, a device, a pipe"
    return mode & 0o170000 not in (0, 0o100000)


def members(path, found):
    "(name, opener) of each, where the archive is what it should be"
    seen,total = {},0
    for name,n_bytes,plain,open_file in found:
        total += n_bytes
        problem = ('is a link, a device or a pipe; pack the files themselves' if not plain else
                   'leads out of the archive' if name.startswith(('/', '\\')) or '..' in PurePosixPath(name).parts or '\0' in name or name[1:2] == ':' else
                   'is there twice' if name in seen else
                   f'is one file too many, more than {MEMBER_LIMIT:,}' if len(seen) >= MEMBER_LIMIT else
                   f'makes it more than {ARCHIVE_LIMIT/2**30:.0f} GB unpacked' if total > ARCHIVE_LIMIT else '')
        if problem: raise KdfastError(f'{path}: {name!r} {problem}')
        seen[name] = open_file
    return list(seen.items())


def layout(path, files, notes):
    "The images of train and of valid, each as (name, class, opener)"
    found = defaultdict(list)
    for name,open_file in files:
        parts = PurePosixPath(name).parts
        if parts[-1].startswith('.') or '__MACOSX' in parts: continue
        if path.is_dir() and (path/name).is_dir(): raise KdfastError(f'{path}: {name} is a folder; {LAYOUT}')
        if PurePosixPath(name).suffix.lower() not in SUFFIXES: notes.add('skipped, not named like an image', name)
        elif len(parts) < 3 or parts[-3] not in ('train', *VALID_NAMES): raise KdfastError(f'{path}: found the image {name}; {LAYOUT}')
        else: found[parts[-3]].append((name, parts[-2], open_file))
    valid = next((split for split in VALID_NAMES if split in found), None)
    if 'train' not in found or not valid:
        raise KdfastError(f'{path}: found {" and ".join(sorted(found)) or "no images"}; {LAYOUT}')
    if path.is_dir():
        full = {f'{split}/{label}' for split in ('train', valid) for _,label,_ in found[split]}
        empty = [name for split in ('train', valid) for name in sorted(f'{split}/{d.name}' for d in (path/split).iterdir() if d.is_dir()) if name not in full]
        if empty: raise KdfastError(f'{path}: no images in {listed(empty)}: fill or remove')
    return dict(train=found['train'], valid=found[valid])


def classes_of(path, splits, notes):
    train,valid = (sorted({label for _,label,_ in listing}) for listing in splits.values())
    if train != valid:
        raise KdfastError(f'{path}: the classes differ: only in train: {listed(sorted(set(train)-set(valid))) or "none"}; '
                          f'only in validation: {listed(sorted(set(valid)-set(train))) or "none"}')
    if len(train) < 2: raise KdfastError(f'{path}: found one class, {train[0]}; a classifier needs at least two')
    unspeakable = [repr(name) for name in train if not name.isprintable()]
    if unspeakable: raise KdfastError(f'{path}: the names of classes {listed(unspeakable)} have characters that cannot be printed: rename the folders')
    for name,n in Counter(unicodedata.normalize('NFC', name).casefold() for name in train).items():
        if n > 1: notes.add('classes whose names differ in case or accents alone', name)
    return train


def images_of_folder(
    path:Path, # A folder
) -> list[tuple[str,Path]]:
    "(name, file) of what lies in the folders of the classes."
    return [(file.relative_to(path).as_posix(), file) for file in sorted(path.glob('*/*/*'))]
