"""Code that comes with a run or an exported file is executed only where it was trained with on this machine, or where the user says so.

Whoever gives a directory away decides everything that is in it, so that nothing in it can vouch for its code. What can is a list in
the user's cache: a digest of a network's name and of the sources that build it, written when the user trains with them.
"""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

from kdfast.core import atomic, distributed
from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError, listed
from kdfast.core.paths import leads_out

accepted = set()  # digests, in this process, should the cache be one that cannot be written
SOURCE = 'source'  # the directory beside weights that holds what builds their network


def digest(built_by):
    return hashlib.sha256(
        json.dumps([built_by['network'], built_by.get('source', {})], sort_keys=True).encode()
    ).hexdigest()


def marker(built_by):
    return cache_home() / 'trusted' / digest(built_by)


def accept(
    built_by: dict,  # What weights say of their network: its name, and the SHA-256 of each source
):
    "From now on this code may run: the user has trained with it, or says so."
    if 'network' not in built_by:
        return
    accepted.add(digest(built_by))
    with contextlib.suppress(OSError):  # then it has to be said again
        marker(built_by).parent.mkdir(parents=True, exist_ok=True)
        marker(built_by).touch()


def check(
    built_by: dict,  # What weights say of their network
    file: Path,  # The weights
):
    "Raise KdfastError where the code that builds the network may not run."
    if digest(built_by) in accepted or marker(built_by).exists():
        return
    where = listed([str(file.parent / SOURCE / name) for name in built_by.get('source', {})]) or 'an installed package'
    raise KdfastError(
        f'{file}: its network is built by code, {built_by["network"]} ({where}), that was not trained with here: '
        'read it, and say --trust-code if it may run'
    )


def read(
    built_by: dict,  # What weights say of their network
    file: Path,  # The weights, beside which the sources lie
) -> dict[str, bytes]:  # By name
    "The sources that build a network. Raises KdfastError where one is missing or has changed."
    found = {}
    for name, sha256 in built_by.get('source', {}).items():
        source = file.parent / SOURCE / name
        if leads_out(name):
            raise KdfastError(f'{file}: {name!r} leads out of its folder')
        try:
            found[name] = source.read_bytes()
        except OSError as e:
            raise KdfastError(f'{source}: {e.strerror}; it builds the network, and belongs beside its weights') from e
        if hashlib.sha256(found[name]).hexdigest() != sha256:
            raise KdfastError(f'{source} is not the file that the network was trained with')
    return found


def keep(
    sources: dict[str, bytes],  # By name
    folder: Path,  # Of the weights that they belong to
):
    """Write them beside the weights; of several processes that train one run, the first alone does.

    Raises KdfastError where another file has the name of one: it may be what somebody works on.
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


def keep_anew(
    sources: dict[str, bytes],  # By name
    folder: Path,  # Of a run that starts
):
    "Write them in place of what an earlier start left, which may be of another version."
    if not distributed.rank:
        shutil.rmtree(folder / SOURCE, ignore_errors=True)
    keep(sources, folder)
