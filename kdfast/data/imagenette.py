"Load Imagenette and Imagewoof, ten classes of ImageNet each, from fastai's archives."

import io
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.data.decode import Reading, decode

# Names of the archives in fastai.data.external.URLs; the shorter side of the images is 160 pixels
URLS = dict(imagenette='IMAGENETTE_160', imagewoof='IMAGEWOOF_160')

# Names of the classes by the names of their folders
WORDNET = {
    'n01440764': 'tench',
    'n02102040': 'English springer',
    'n02979186': 'cassette player',
    'n03000684': 'chain saw',
    'n03028079': 'church',
    'n03394916': 'French horn',
    'n03417042': 'garbage truck',
    'n03425413': 'gas pump',
    'n03445777': 'golf ball',
    'n03888257': 'parachute',
    'n02086240': 'Shih-Tzu',
    'n02087394': 'Rhodesian ridgeback',
    'n02088364': 'beagle',
    'n02089973': 'English foxhound',
    'n02093754': 'Border terrier',
    'n02096294': 'Australian terrier',
    'n02099601': 'golden retriever',
    'n02105641': 'Old English sheepdog',
    'n02111889': 'Samoyed',
    'n02115641': 'dingo',
}


def download(
    name: str,  # imagenette or imagewoof
) -> Path:
    """Download the archive on its first use, and return its path in fastai's folder.

    fastai compares it with the size and checksum that it knows. Raises KdfastError if the download fails.
    """
    bar = sys.stderr if sys.stderr.isatty() else io.StringIO()  # stdout is for results
    with warnings.catch_warnings(action='ignore', category=FutureWarning), redirect_stdout(bar):
        import fastai.data
        from fastai.data.external import URLs, fastai_cfg
        from fastdownload import FastDownload

        url = getattr(URLs, URLS[name])
        try:
            return FastDownload(fastai_cfg(), module=fastai.data).download(url)
        except Exception as e:  # nothing narrower is raised for a wrong checksum
            reason = str(e).partition('\n')[0]
            raise KdfastError(
                f'{name} could not be downloaded from {url} ({reason}): go online once, or pass a copy with --data PATH'
            ) from e


def decode_with_class_names(
    path: Path,  # The archive
    reading: Reading,  # How to read the images
    folder: Path,  # Where the arrays go
    side: int | None = None,  # Scale images to squares of this side
) -> dict:  # As `decode`
    "Decode the archive, with names of classes instead of WordNet numbers. Raises KdfastError."
    facts = decode(path, reading, folder, side)
    facts.pop('fingerprint', None)  # it depends on the names of the classes
    return facts | dict(classes=[WORDNET.get(name, name) for name in facts['classes']])
