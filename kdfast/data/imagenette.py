"Imagenette and Imagewoof, ten classes of ImageNet each: fastai's archives, by fastai's downloader, and never unpacked."

import io
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.data.decode import decode

URLS = dict(imagenette='IMAGENETTE_160', imagewoof='IMAGEWOOF_160')  # of fastai's: the shorter sides are 160 pixels


WORDNET = {  # what the folders of the classes are called, and what they show
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


def fetch(
    name: str,  # imagenette or imagewoof
) -> Path:
    "The archive, downloaded on its first use to where fastai keeps its own and compared with the size and checksum that fastai knows. Raises KdfastError."
    bar = sys.stderr if sys.stderr.isatty() else io.StringIO()  # stdout is for results
    with warnings.catch_warnings(action='ignore', category=FutureWarning), redirect_stdout(bar):
        import fastai.data
        from fastai.data.external import URLs, fastai_cfg
        from fastdownload import FastDownload

        url = getattr(URLs, URLS[name])
        try:
            return FastDownload(fastai_cfg(), module=fastai.data).download(url)
        except Exception as e:  # for a wrong checksum it raises nothing narrower
            raise KdfastError(
                f'{name} could not be downloaded from {url} ({str(e).partition(chr(10))[0]}): go online once, or pass a copy with --data PATH'
            ) from e


def decode_words(*arguments):
    "As `decode`, the classes by their names"
    facts = decode(*arguments)
    return facts | dict(classes=[WORDNET.get(i, i) for i in facts['classes']])
