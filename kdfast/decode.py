"The images of a folder or an archive: found, checked and decoded, every one of them before anything trains."
import io
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdfast.errors import KdfastError, listed
from kdfast.files import entries, read
from kdfast.layout import Notes, classes_of, layout

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF')
PIXEL_LIMIT = 2**26 # of an image
CHUNK = 256 # images that are read, but not yet decoded
LARGE = 2**30 # bytes of decoded images that a user should hear of


def decode(
    path:Path, # A folder or an archive
    alone:bool, # Training images alone will do
    folder:Path, # Where the arrays go, <split>_images.npy and <split>_labels.npy
    side:int|None=None, # Scale images of any size to squares of this side; without it they must have one size
) -> tuple[list[str],list[str]]: # The classes, and what a user should know about the images
    """Decode every image of `path`.

    Raises KdfastError, naming the files, for another layout, a class that one split lacks, images that do not decode
    or differ in size, an archive that could do harm, and a disk without room.
    """
    notes = Notes()
    with entries(path) as files:
        splits = layout(path, files, notes, alone)
        classes = classes_of(path, splits, notes)
        n_all = sum(map(len, splits.values()))
        with progress(path, splits) as advance, warnings.catch_warnings(action='ignore', category=Image.DecompressionBombWarning): # the limit is ours
            unreadable = [bad for split,listing in splits.items() for bad in decode_split(path, split, listing, n_all, classes, folder, side, notes, advance)]
    if unreadable: raise KdfastError(f'{path}: {listed(unreadable, "; ")} {"is" if len(unreadable) == 1 else "are"} not to be read: replace or remove')
    if not splits['valid']: np.save(folder/'valid_images.npy', np.load(folder/'train_images.npy', mmap_mode='r')[:0])
    return classes,notes.said()


@contextmanager
def progress(path, splits):
    "On a terminal one live line; elsewhere a plain one a split. Gives what is to be called with the number of images done"
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        for split,listing in splits.items():
            if listing: print(f'kdfast: reading {len(listing):,} images of {split} from {path}', file=sys.stderr, flush=True)
        yield lambda n: None
    else:
        columns = TextColumn('reading {task.description}'),BarColumn(bar_width=None),MofNCompleteColumn(),TimeRemainingColumn(compact=True)
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            task = bar.add_task(path.name, total=sum(map(len, splits.values())))
            yield partial(bar.advance, task)


def decode_split(path, split, listing, n_all, classes, folder, side, notes, advance) -> Iterator[str]:
    "What of it cannot be read. Rows are in order of class and name, whatever order the source gives them in"
    order = {name: row for row,name in enumerate(sorted(name for name,*_ in listing))}
    labels = np.empty(len(listing), np.int64)
    images = first = None
    with ThreadPoolExecutor() as pool: # decoding leaves Python's lock; reading an archive stays with this thread
        for start in range(0, len(listing), CHUNK):
            some = listing[start:start + CHUNK]
            contents = [read(open_file) for _,_,open_file in some]
            for (name,label,_),(image,problem,remarks) in zip(some, pool.map(partial(decoded, side=side), contents)):
                if problem: yield f'{name} ({problem})'
                else:
                    if images is None:
                        first = name
                        if split == 'train': check_room(folder, n_all*image.nbytes)
                        images = np.lib.format.open_memmap(folder/f'{split}_images.npy', 'w+', np.uint8, (len(listing), *image.shape))
                    if image.shape != images.shape[1:]:
                        raise KdfastError(f'{path}: images differ in size: {first} is {size(images[0])}, {name} is {size(image)}; '
                                          'for photographs of any size say at which networks should see them, such as --size 128')
                    images[order[name]],labels[order[name]] = image,classes.index(label)
                for remark in remarks: notes.add(remark, name)
            advance(len(some))
    if images is not None: images.flush()
    np.save(folder/f'{split}_labels.npy', labels)


def size(image): return f'{image.shape[-2]}×{image.shape[-3]}'


def check_room(
    folder:Path, # Where decoded images are to be written
    n_bytes:int, # How much they will take
):
    "Say so where it is much. Raises KdfastError where the disk has less: writing to a mapped file would end the process."
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise KdfastError(f'the decoded images need {gigabytes(n_bytes)} in {folder.parent}, {gigabytes(free)} are free: '
                          'make room, take a smaller --size, or name a folder on a larger disk with XDG_CACHE_HOME')
    if n_bytes > LARGE: print(f'kdfast: the decoded images take {gigabytes(n_bytes)} in {folder.parent}', file=sys.stderr)


def gigabytes(n_bytes): return f'{n_bytes/2**30:.1f} GB'


# One image

DECODE_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError)


def decoded(content, side):
    "(pixels, what is wrong, what is remarkable) of a file's bytes; or of the error in their place"
    if isinstance(content, Exception): return None,str(content),[]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image: found,problem,remarks = colours(image)
    except DECODE_ERRORS as e: return None,'no image' if isinstance(e, UnidentifiedImageError) else str(e),[]
    if found and side: found = square(found, side)
    return found and np.asarray(found),problem,remarks


def square(
    image:Image.Image, # Of any size
    side:int, # Pixels
) -> Image.Image:
    "The image, scaled so that its shorter side is `side`, antialiased; and of that the central square."
    short = min(image.size)
    left,top = ((length - short)/2 for length in image.size)
    return image.resize((side, side), Image.BILINEAR, box=(left, top, left + short, top + short))


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
    return upright.convert('RGB'),'',remarks
