"""Execute code that comes with weights only if this machine has trained with it or the user allows it.

Whoever publishes a directory controls all of its content, so no file in it can prove that its code is safe. The user's
cache holds the list of trusted code instead: a digest of a network's name and of the sources that build it, added when
the user trains with them.
"""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

from kdfast.core import atomic, distributed
from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError, listed
from kdfast.core.paths import is_unsafe_path

accepted = set()  # digests accepted by this process; used if the cache is read-only
SOURCE = 'source'  # the directory, beside weights, of the sources that build their network


def digest(
    description: dict,  # Description of a network in its weights: `network`, its name, and `source`, SHA-256 by file
) -> str:  # 64 hexadecimal digits
    "Compute the digest of a network's name and sources."
    text = json.dumps([description['network'], description.get('source', {})], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def marker(
    description: dict,  # Description of a network in its weights
) -> Path:
    "Return the file whose existence marks code as trusted."
    return cache_home() / 'trusted' / digest(description)


def accept(
    description: dict,  # Description of a network in its weights
):
    "Allow this code from now on: the user has trained with it, or allows it."
    if 'network' not in description:
        return
    accepted.add(digest(description))
    with contextlib.suppress(OSError):  # a read-only cache: it is allowed in this process alone
        marker(description).parent.mkdir(parents=True, exist_ok=True)
        marker(description).touch()


def check(
    description: dict,  # Description of a network in its weights
    file: Path,  # The weights
):
    "Raise KdfastError unless the code that builds the network is allowed."
    if digest(description) in accepted or marker(description).exists():
        return
    sources = [str(file.parent / SOURCE / name) for name in description.get('source', {})]
    where = listed(sources) or 'an installed package'
    raise KdfastError(
        f'{file}: its network is built by code, {description["network"]} ({where}), that was not trained with here: '
        'read it, then add --trust-code if it may run'
    )


def read_sources(
    description: dict,  # Description of a network in its weights
    file: Path,  # The weights, beside which the sources are
) -> dict[str, bytes]:  # By name
    "Read the sources that build a network. Raises KdfastError if one is missing or has changed."
    found = {}
    for name, sha256 in description.get('source', {}).items():
        source = file.parent / SOURCE / name
        if is_unsafe_path(name):
            raise KdfastError(f'{file}: {name!r} leads out of its folder')
        try:
            found[name] = source.read_bytes()
        except OSError as e:
            raise KdfastError(f'{source}: {e.strerror}; it builds the network, and belongs beside its weights') from e
        if hashlib.sha256(found[name]).hexdigest() != sha256:
            raise KdfastError(f'{source} is not the file that the network was trained with')
    return found


def save_sources(
    sources: dict[str, bytes],  # By name
    folder: Path,  # Of the weights
):
    """Write sources beside weights; in distributed training only rank 0 does.

    Raises KdfastError if a different file of the same name exists, which may be the user's work.
    """
    if distributed.rank:
        return
    for name, content in sources.items():
        file = folder / SOURCE / name
        if file.exists() and file.read_bytes() != content:
            raise KdfastError(
                f'{file} is not the file that the network was trained with: choose another folder, or remove it'
            )
    for name, content in sources.items():
        (folder / SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        atomic.write(folder / SOURCE / name, content)


def replace_sources(
    sources: dict[str, bytes],  # By name
    folder: Path,  # Of a run that starts
):
    "Write sources in place of those of an earlier start, which may be another version."
    if not distributed.rank:
        shutil.rmtree(folder / SOURCE, ignore_errors=True)
    save_sources(sources, folder)
