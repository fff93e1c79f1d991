"""Make the small data set of photographs that comes with kdfast, from an archive of all of CIFAR-10 as JPEG files.

python benchmarks/small_photographs.py cifar10-images.tar.xz [--train 300] [--valid 300] [--out FILE]

The archive holds train/<class>/<name>.jpg and valid/<class>/<name>.jpg, or test/ in place of valid/. Of each class and
split, the images are drawn at random with seed 0; the files are taken as they are. The result is the same, to the
byte, whenever it is made.
"""

import argparse
import io
import lzma
import random
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

OUT = Path(__file__).parents[1] / 'kdfast' / 'data' / 'cifar10-small.tar.xz'


def read(source: Path):
    "Contents by split, class and name"
    files = defaultdict(lambda: defaultdict(dict))
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isfile():
                split, label, name = PurePosixPath(member.name).parts[-3:]
                split = 'valid' if split in ('test', 'val') else split
                files[split][label][name] = archive.extractfile(member).read()
    return files


def draw(files, sizes: dict[str, int]):
    "Yield (name in the archive, content) of the images that are drawn, sorted"
    for split, n in sizes.items():
        for label in sorted(files[split]):
            names = sorted(files[split][label])
            for name in sorted(random.Random(f'{split} {label} 0').sample(names, n)):
                yield f'{split}/{label}/{name}', files[split][label][name]


def write(out: Path, images):
    "Write an archive that depends on names and contents alone"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w', format=tarfile.USTAR_FORMAT) as archive:
        for name, content in images:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    out.write_bytes(lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path)
    parser.add_argument('--train', type=int, default=300, help='images per class')
    parser.add_argument('--valid', type=int, default=300, help='images per class')
    parser.add_argument('--out', type=Path, default=OUT)
    options = parser.parse_args()
    write(options.out, draw(read(options.source), dict(train=options.train, valid=options.valid)))
    print(f'{options.out}: {options.out.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
