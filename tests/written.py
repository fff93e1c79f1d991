"Data sets of every layout, container and format, written from the same images: for the tests of what is read."

import csv
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ['ape', 'bee', 'cat']
N = dict(train=4, valid=2, test=1)  # images of each class
SIDE = 16


def pixels(split, label, i, side=SIDE):
    "An image that nothing else looks like; its brightest channel tells its class"
    random = np.random.default_rng([['train', 'valid', 'test'].index(split), label, i])
    made = random.integers(0, 100, (side, side, 3), dtype=np.uint8)
    made[..., label % 3] += 120
    return made


def all_pixels(splits=('train', 'valid'), side=SIDE):
    "(split, class, number, pixels) of every image"
    return [
        (split, label, i, pixels(split, label, i, side))
        for split in splits
        for label in range(len(CLASSES))
        for i in range(N[split])
    ]


# Formats: what writes an array, with its suffix, and how far what is read back may be from it


def saved(image, kind, **how):
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def plain(kind, **how):
    return lambda made: saved(Image.fromarray(made), kind, **how)


def deep(kind, bits):
    def grey(made):
        return (made.max(2).astype(float) * (2**bits - 1) / 255).round().astype(np.uint16)

    return lambda made: saved(Image.fromarray(grey(made)), kind)


def floats(made):
    return saved(Image.fromarray((made.max(2) / 255).astype(np.float32)), 'TIFF')


FORMATS = {  # name: suffix, writer, largest mean difference, whether only the brightest channel is kept
    'PNG': ('.png', plain('PNG'), 0, False),
    'JPEG': ('.jpg', plain('JPEG', quality=95), 25, False),
    'upper case': ('.JPEG', plain('JPEG', quality=95), 25, False),
    'WebP': ('.webp', plain('WEBP', lossless=True), 0, False),
    'BMP': ('.bmp', plain('BMP'), 0, False),
    'TIFF': ('.tif', plain('TIFF'), 0, False),
    'TIFF, LZW': ('.tiff', plain('TIFF', compression='tiff_lzw'), 0, False),
    'GIF': ('.gif', plain('GIF'), 30, False),
    'PPM': ('.ppm', plain('PPM'), 0, False),
    'JPEG 2000': ('.jp2', plain('JPEG2000'), 0, False),
    'AVIF': ('.avif', plain('AVIF', quality=95), 25, False),
    'JFIF': ('.jfif', plain('JPEG', quality=95), 25, False),
    'TGA': ('.tga', plain('TGA'), 0, False),
    'PCX': ('.pcx', plain('PCX'), 0, False),
    'SGI': ('.sgi', plain('SGI'), 0, False),
    'QOI': ('.qoi', plain('QOI'), 0, False),
    'DDS': ('.dds', plain('DDS'), 0, False),
    'ICO': ('.ico', plain('ICO', sizes=[(SIDE, SIDE)]), 0, False),
    'DIB': ('.dib', plain('DIB'), 0, False),
    'wrong suffix': ('.jpg', plain('PNG'), 0, False),
    'no suffix': ('', plain('PNG'), 0, False),
    'unknown suffix': ('.photo', plain('PNG'), 0, False),
    'PNG, 16 bits': ('.png', deep('PNG', 16), 1, True),
    'PNG, 12 bits': ('.png', deep('PNG', 12), 1, True),
    'TIFF, 10 bits': ('.tif', deep('TIFF', 10), 1, True),
    'PGM, 14 bits': ('.pgm', deep('PPM', 16), 1, True),
    'TIFF, float': ('.tif', floats, 1, True),
}


# Layouts: name in the container by (split, class, number), which splits, tables


def rows_of(names, header, delimiter=',', key=lambda name: name, cell=lambda split: split):
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, lineterminator='\n')
    table.writerow(header)
    for (split, label, _), name in names.items():
        table.writerow([key(name), CLASSES[label], cell(split)][: len(header)])
    return text.getvalue().encode()


def lines_of(names, **keys):
    return '\n'.join(
        json.dumps(dict(zip(keys, (name, CLASSES[label], split)))) for (split, label, _), name in names.items()
    ).encode()


def in_split(split, label, i):
    return f'{split}/{CLASSES[label]}/{i}'


def flat(split, label, i):
    return f'images/{CLASSES[label]}-{split}-{i}'


def called(train, valid):
    return lambda split, label, i: f'{dict(train=train, valid=valid)[split]}/{CLASSES[label]}/{i}'


def no_table(names):
    return {}


def of_split(names, split):
    return {key: name for key, name in names.items() if key[0] == split}


def metadata(names):
    header = ['file_name', 'label']
    return {
        f'{split}/metadata.csv': rows_of(of_split(names, split), header, key=lambda name: Path(name).name)
        for split in BOTH
    }


def lists(names):
    def lines(split):
        return [name.removeprefix('images/').partition('.')[0] for name in of_split(names, split).values()]

    return {
        f'meta/{name}.txt': '\n'.join(lines(split)).encode() for split, name in (('train', 'train'), ('valid', 'test'))
    }


TRAIN, BOTH, ALL = ('train',), ('train', 'valid'), ('train', 'valid', 'test')
LAYOUTS = {  # name: splits, where an image lies, tables beside them
    'class': (TRAIN, lambda split, label, i: f'{CLASSES[label]}/{i}', no_table),
    'class, folders below': (TRAIN, lambda split, label, i: f'{CLASSES[label]}/{i % 2}/{i}', no_table),
    'train alone': (TRAIN, in_split, no_table),
    'train, valid': (BOTH, in_split, no_table),
    'train, valid, test': (ALL, in_split, no_table),
    'train, validation': (BOTH, called('train', 'validation'), no_table),
    'Training, Testing': (BOTH, called('Training', 'Testing'), no_table),
    'train_set, test_set': (BOTH, called('train_set', 'test_set'), no_table),
    'TRAIN, VAL': (BOTH, called('TRAIN', 'VAL'), no_table),
    'train2017, val2017': (BOTH, called('train2017', 'val2017'), no_table),
    'seg_train/seg_train': (BOTH, called('seg_train/seg_train', 'seg_test/seg_test'), no_table),
    'class/split': (BOTH, lambda split, label, i: f'{CLASSES[label]}/{split}/{i}', no_table),
    'labels.csv': (ALL, flat, lambda names: {'labels.csv': rows_of(names, ['name', 'label', 'split'])}),
    'labels.csv, no split': (TRAIN, flat, lambda names: {'labels.csv': rows_of(names, ['filename', 'category'])}),
    'labels.csv, is_valid 1/0': (
        BOTH,
        flat,
        lambda names: {
            'labels.csv': rows_of(names, ['image_id', 'class', 'is_valid'], cell=lambda split: int(split == 'valid'))
        },
    ),
    'train.csv, semicolons, no suffix': (
        TRAIN,
        flat,
        lambda names: {'train.csv': rows_of(names, ['id', 'breed'], ';', lambda name: Path(name).stem)},
    ),
    'labels.tsv': (BOTH, flat, lambda names: {'labels.tsv': rows_of(names, ['path', 'target', 'subset'], '\t')}),
    'labels.jsonl': (BOTH, flat, lambda names: {'labels.jsonl': lines_of(names, file_name=0, label=0, split=0)}),
    'metadata.csv a split': (BOTH, lambda split, label, i: f'{split}/{label}-{i}', metadata),
    'lists of a split': (BOTH, lambda split, label, i: f'images/{CLASSES[label]}/{split}{i}', lists),
}


def files_of(layout, kind):
    "Content by name"
    splits, where, tables = LAYOUTS[layout]
    suffix, write, *_ = FORMATS[kind]
    names = {(split, label, i): where(split, label, i) + suffix for split, label, i, _ in all_pixels(splits)}
    return {name: write(pixels(*key)) for key, name in names.items()} | tables(names)


# Containers

JUNK = {
    '.DS_Store': b'x',
    '__MACOSX/._x.png': b'x',
    'Thumbs.db': b'x',
    '@eaDir/SYNOPHOTO_THUMB_M.jpg': plain('JPEG')(pixels('train', 0, 0)),
    '.ipynb_checkpoints/0-checkpoint.png': plain('PNG')(pixels('train', 0, 0)),
}


def with_junk(files):
    folders = sorted({str(Path(name).parent) for name in files})
    return files | {f'{folder}/{name}': content for folder in folders for name, content in JUNK.items()}


def to_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def to_zip(path, files, backslashes=False):
    with zipfile.ZipFile(path.with_name(f'{path.name}.zip'), 'w') as z:
        for name, content in files.items():
            info = zipfile.ZipInfo('x')
            info.filename = name.replace('/', '\\') if backslashes else name
            z.writestr(info, content)
    return path.with_name(f'{path.name}.zip')


def to_tar(path, files, packed=''):
    made = path.with_name(f'{path.name}.tar' + (f'.{packed}' if packed else ''))
    plain_tar = io.BytesIO()
    with tarfile.open(
        fileobj=plain_tar if packed == 'zst' else None,
        name=None if packed == 'zst' else made,
        mode='w' if packed in ('', 'zst') else f'w:{packed}',
    ) as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    if packed == 'zst':
        from backports import zstd

        made.write_bytes(zstd.compress(plain_tar.getvalue()))
    return made


def inside(files, top='photos'):
    return {f'{top}/{name}': content for name, content in files.items()}


CONTAINERS = {
    'folder': to_folder,
    'one folder too many': lambda path, files: to_folder(path, inside(files)),
    'folder with machines\' files': lambda path, files: to_folder(path, with_junk(files)),
    'zip': to_zip,
    'zip of Windows': lambda path, files: to_zip(path, files, True),
    'zip, a folder inside': lambda path, files: to_zip(path, inside(files)),
    'zip with machines\' files': lambda path, files: to_zip(path, with_junk(files)),
    'tar': to_tar,
    'tar.gz': lambda path, files: to_tar(path, files, 'gz'),
    'tar.bz2': lambda path, files: to_tar(path, files, 'bz2'),
    'tar.xz': lambda path, files: to_tar(path, files, 'xz'),
    'tar.zst': lambda path, files: to_tar(path, files, 'zst'),
}


def right(data, layout, kind):
    "What is wrong with the data set that was read; nothing where it is what was written"
    splits, (*_, far, brightest) = LAYOUTS[layout][0], FORMATS[kind]
    return compare(data, splits, far, brightest)


def compare(data, splits, far=0, brightest=False, classes=CLASSES, side=SIDE):
    if data.classes != classes:
        return f'classes {data.classes}'
    written = {
        split: [(label, made) for s, label, _, made in all_pixels(splits, side) if s == split] for split in splits
    }
    read = dict(train=data.train, valid=data.valid, test=data.test)
    if 'valid' not in splits:  # a share of what trains was held out
        read['train'] = (
            np.concatenate([data.train[0][:], data.valid[0][:]]),
            np.concatenate([data.train[1], data.valid[1]]),
        )
        if len(data.valid[1]) != len(classes) * max(1, round(0.2 * N['train'])):
            return f'{len(data.valid[1])} validation images'
    for split, images in written.items():
        found, labels = np.asarray(read[split][0][:]), list(read[split][1])
        if len(found) != len(images):
            return f'{len(found)} {split} images'
        for label, made in images:
            if brightest:
                made = np.repeat(made.max(2, keepdims=True), 3, 2)
            differences = np.abs(found.astype(int) - made).mean((1, 2, 3))
            nearest = differences.argmin()
            if differences[nearest] > far:
                return f'an image of {split} that is {differences[nearest]:.1f} from what was written'
            if labels[nearest] != label:
                return f'a wrong label in {split}'
    return ''


# Sources with a form of their own: files by name, splits, and what is compared


def stack(split):
    return [pixels(split, label, i) for label in range(len(CLASSES)) for i in range(N[split])], [
        label for label in range(len(CLASSES)) for _ in range(N[split])
    ]


def parquet(splits=BOTH, strings=False, arrow=False):
    import pyarrow
    import pyarrow.parquet

    features = dict(
        image=dict(_type='Image'),
        label=dict(_type='Value', dtype='string') if strings else dict(names=CLASSES, _type='ClassLabel'),
    )
    files = {}
    for split in splits:
        images, labels = stack(split)
        table = pyarrow.table(
            dict(
                image=[dict(bytes=plain('PNG')(image), path=None) for image in images],
                label=[CLASSES[label] for label in labels] if strings else labels,
            )
        )
        table = table.replace_schema_metadata({'huggingface': json.dumps(dict(info=dict(features=features)))})
        out = io.BytesIO()
        if arrow:
            with pyarrow.ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table, 3)
            files[f'{dict(valid="validation").get(split, split)}/data-00000-of-00001.arrow'] = out.getvalue()
        else:
            pyarrow.parquet.write_table(table, out, row_group_size=5)
            files[f'data/{dict(valid="validation").get(split, split)}-00000-of-00001.parquet'] = out.getvalue()
    return files


def shards(splits=BOTH, label='cls'):
    files = {}
    for split in splits:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode='w') as t:
            for n, (image, k) in enumerate(zip(*stack(split))):
                said = dict(cls=CLASSES[k].encode(), json=json.dumps(dict(label=CLASSES[k], width=16)).encode())[label]
                for suffix, content in (('png', plain('PNG')(image)), (label, said)):
                    info = tarfile.TarInfo(f'{n:05}.{suffix}')
                    info.size = len(content)
                    t.addfile(info, io.BytesIO(content))
        files[f'{split}-000000.tar'] = out.getvalue()
    return files


def npz(
    splits=ALL, image='{}_images', label='{}_labels', words=dict(train='train', valid='val', test='test'), column=True
):
    out, arrays = io.BytesIO(), {}
    for split in splits:
        images, labels = stack(split)
        arrays[image.format(words[split])], arrays[label.format(words[split])] = (
            np.stack(images),
            np.array(labels)[:, None] if column else np.array(labels),
        )
    np.savez(out, **arrays)
    return {'set.npz': out.getvalue()}


def batches(split, n_batches, side=32):
    images = [(made, label) for s, label, _, made in all_pixels((split,), side) if s == split]
    return [images[k::n_batches] for k in range(n_batches)]


def rows(images):
    return np.stack([image.transpose(2, 0, 1).reshape(-1) for image, _ in images])


def cifar10(dump=pickle.dumps):
    made = {
        f'data_batch_{k}': dict(data=rows(batch), labels=[label for _, label in batch])
        for k, batch in enumerate(batches('train', 5), 1)
    } | {
        'test_batch': dict(data=rows(batches('valid', 1)[0]), labels=[label for _, label in batches('valid', 1)[0]]),
        'batches.meta': dict(label_names=CLASSES),
    }
    return {
        f'cifar-10-batches-py/{name}': dump({key.encode(): value for key, value in content.items()})
        for name, content in made.items()
    }


def cifar100(dump=pickle.dumps):
    made = {
        name: dict(data=rows(images), fine_labels=[label for _, label in images], coarse_labels=[0 for _ in images])
        for name, images in (('train', batches('train', 1)[0]), ('test', batches('valid', 1)[0]))
    }
    made['meta'] = dict(fine_label_names=CLASSES, coarse_label_names=['all'])
    return {
        f'cifar-100-python/{name}': dump({key.encode(): value for key, value in content.items()})
        for name, content in made.items()
    }


def cifar_binary(labels=1):
    def content(images):
        return b''.join(
            bytes([0] * (labels - 1) + [label]) + image.transpose(2, 0, 1).tobytes() for image, label in images
        )

    if labels == 2:
        return {
            'cifar-100-binary/train.bin': content(batches('train', 1)[0]),
            'cifar-100-binary/test.bin': content(batches('valid', 1)[0]),
            'cifar-100-binary/fine_label_names.txt': '\n'.join(CLASSES).encode(),
        }
    return {
        f'cifar-10-batches-bin/data_batch_{k}.bin': content(batch) for k, batch in enumerate(batches('train', 5), 1)
    } | {
        'cifar-10-batches-bin/test_batch.bin': content(batches('valid', 1)[0]),
        'cifar-10-batches-bin/batches.meta.txt': '\n'.join(CLASSES).encode(),
    }


def mat(**variables):
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, variables)
    return out.getvalue()


def svhn():
    return {
        f'{name}_32x32.mat': mat(
            X=np.stack([image for image, _ in images], -1), y=np.array([[label or 10] for _, label in images])
        )
        for name, images in (('train', batches('train', 1)[0]), ('test', batches('valid', 1)[0]))
    }


def idx(packed=True):
    files = {}
    for name, split in (('train', 'train'), ('t10k', 'valid')):
        images, labels = stack(split)
        grey = np.stack([image.max(2) for image in images])
        files[f'{name}-images-idx3-ubyte'] = np.array([0x803, *grey.shape], '>u4').tobytes() + grey.tobytes()
        files[f'{name}-labels-idx1-ubyte'] = np.array([0x801, len(labels)], '>u4').tobytes() + bytes(labels)
    return {f'{name}.gz': gzip.compress(content) for name, content in files.items()} if packed else files


def stl10():
    files = {'stl10_binary/class_names.txt': '\n'.join(CLASSES).encode(), 'stl10_binary/unlabeled_X.bin': b'x'}
    for name, images in (('train', batches('train', 1, 96)[0]), ('test', batches('valid', 1, 96)[0])):
        files[f'stl10_binary/{name}_X.bin'] = b''.join(image.transpose(2, 1, 0).tobytes() for image, _ in images)
        files[f'stl10_binary/{name}_y.bin'] = bytes(label + 1 for _, label in images)
    return files


def flowers():
    files, labels, ids = {}, [], dict(trnid=[], valid=[], tstid=[])
    for n, (split, label, _, image) in enumerate(all_pixels(ALL), 1):
        files[f'jpg/image_{n:05}.jpg'] = plain('PNG')(image)
        labels.append(label + 1)
        ids[dict(train='trnid', valid='valid', test='tstid')[split]].append(n)
    return files | {
        'imagelabels.mat': mat(labels=np.array([labels])),
        'setid.mat': mat(**{name: np.array([value]) for name, value in ids.items()}),
    }


def food101():
    names = {(split, label, i): f'{CLASSES[label]}/{split}{i}' for split, label, i, _ in all_pixels(BOTH)}
    files = {f'food-101/images/{name}.jpg': plain('PNG')(pixels(*key)) for key, name in names.items()}
    return files | {
        f'food-101/meta/{list_}.txt': '\n'.join(name for key, name in names.items() if key[0] == split).encode()
        for split, list_ in (('train', 'train'), ('valid', 'test'))
    }


def pets():
    names = {
        (split, label, i): f'{CLASSES[label].title()}_{100 * (split == "valid") + i}'
        for split, label, i, _ in all_pixels(BOTH)
    }
    files = {f'images/{name}.jpg': plain('PNG')(pixels(*key)) for key, name in names.items()} | {
        'annotations/list.txt': b'#Image CLASS-ID SPECIES BREED ID\n'
    }
    return files | {
        f'annotations/{list_}.txt': '\n'.join(
            f'{name} {key[1] + 1} 1 1' for key, name in names.items() if key[0] == split
        ).encode()
        for split, list_ in (('train', 'trainval'), ('valid', 'test'))
    }


SOURCES = {  # name: files, splits, what differs from the images that were written
    'Hugging Face Parquet': (parquet, BOTH, {}),
    'Parquet, labels as text': (lambda: parquet(strings=True), BOTH, {}),
    'Parquet, train alone': (lambda: parquet(TRAIN), TRAIN, {}),
    'Parquet, three splits': (lambda: parquet(ALL), ALL, {}),
    'Arrow, save_to_disk': (lambda: parquet(arrow=True), BOTH, {}),
    'WebDataset, .cls': (shards, BOTH, {}),
    'WebDataset, .json': (lambda: shards(label='json'), BOTH, {}),
    'CIFAR-10, Python': (cifar10, BOTH, dict(side=32)),
    'CIFAR-100, Python': (cifar100, BOTH, dict(side=32)),
    'CIFAR-10, binary': (cifar_binary, BOTH, dict(side=32)),
    'CIFAR-100, binary': (lambda: cifar_binary(2), BOTH, dict(side=32)),
    'SVHN': (svhn, BOTH, dict(side=32, classes=['0', '1', '2'])),
    'MNIST, packed': (idx, BOTH, dict(brightest=True, classes=['0', '1', '2'])),
    'MNIST, unpacked': (lambda: idx(False), BOTH, dict(brightest=True, classes=['0', '1', '2'])),
    'STL-10': (stl10, BOTH, dict(side=96)),
    'Oxford 102 Flowers': (flowers, ALL, dict(classes=['001', '002', '003'])),
    'Food-101': (food101, BOTH, {}),
    'Oxford-IIIT Pet': (pets, BOTH, dict(classes=['Ape', 'Bee', 'Cat'])),
}
ARRAYS = {  # files that are read by their own path
    'MedMNIST .npz': (npz, ALL),
    'Keras .npz': (lambda: npz(BOTH, 'x_{}', 'y_{}', dict(train='train', valid='test'), False), BOTH),
    '.npz without splits': (lambda: npz(TRAIN, 'images', 'labels'), TRAIN),
}


# What is not read, and what the error says


def photos(**more):
    files = {
        f'train/{name}/{i}.png': plain('PNG')(pixels('train', label, i))
        for label, name in enumerate(CLASSES)
        for i in range(3)
    }
    files |= {
        f'valid/{name}/{i}.png': plain('PNG')(pixels('valid', label, i))
        for label, name in enumerate(CLASSES)
        for i in range(2)
    }
    return files | more


def one(name, content):
    return lambda: photos(**{name: content})


def only(suffix, content=b'x'):
    return lambda: {f'{name}/{i}{suffix}': content for name in CLASSES for i in range(3)}


def csv_of(text, **more):
    return lambda: (
        {
            f'images/{name}{i}.png': plain('PNG')(pixels('train', label, i))
            for label, name in enumerate(CLASSES)
            for i in range(3)
        }
        | {'labels.csv': text.encode()}
        | more
    )


JPEG = plain('JPEG')(pixels('train', 0, 0))
REFUSED = {
    'HEIC': (
        one('train/ape/x.heic', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'),
        ['train/ape/x.heic', 'HEIC', 'pip install pillow-heif', '--skip-broken'],
    ),
    'HEIC called .jpg': (
        one('train/ape/x.jpg', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'),
        ['train/ape/x.jpg', 'HEIC', 'pip install pillow-heif'],
    ),
    'JPEG XL': (one('train/ape/x.jxl', b'\xff\x0a' + b'x' * 20), ['JPEG XL', 'pip install pillow-jxl-plugin']),
    'a cut JPEG': (
        one('train/ape/x.jpg', JPEG[: len(JPEG) // 2]),
        ['train/ape/x.jpg', 'truncated', 'replace or remove'],
    ),
    'a cut PNG': (one('train/ape/x.png', plain('PNG')(pixels('train', 0, 0))[:80]), ['truncated']),
    'an empty file': (one('train/ape/x.jpg', b''), ['an empty file']),
    'a web page': (one('train/ape/x.jpg', b'<!DOCTYPE html><html>'), ['web page', 'download']),
    'a Git LFS pointer': (
        one('train/ape/x.jpg', b'version https://git-lfs.github.com/spec/v1\noid sha256:0'),
        ['git lfs pull'],
    ),
    'SVG called .png': (one('train/ape/x.png', b'<?xml version="1.0"?><svg xmlns="x"/>'), ['SVG', 'render']),
    'PDF called .jpg': (one('train/ape/x.jpg', b'%PDF-1.7'), ['PDF', 'render']),
    'DICOM called .png': (one('train/ape/x.png', b'\0' * 128 + b'DICM'), ['DICOM', 'PNG']),
    'another size': (
        one('train/ape/x.png', plain('PNG')(pixels('train', 0, 0, 20))),
        ['differ in size', '20×20', '--size 128'],
    ),
    'DICOM': (only('.dcm'), ['9 × .dcm', 'DICOM', 'PNG']),
    'camera raw': (only('.NEF'), ['camera raw', 'develop']),
    'videos': (only('.mp4'), ['videos', 'frames']),
    'SVG': (only('.svg'), ['vector graphics', 'render']),
    'archives': (lambda: {'train.zip': b'PK', 'test.zip': b'PK'}, ['2 × .zip', 'pass one by its path']),
    'text': (only('.txt'), ['9 × .txt', 'expected']),
    'nothing': (lambda: {'.keep': b''}, ['found no images, it is empty', 'expected']),
    'no folders of classes': (
        lambda: {f'{i}.png': plain('PNG')(pixels('train', 0, i)) for i in range(3)},
        ['3 images', 'no folder of a class', 'labels'],
    ),
    'one class': (
        lambda: {f'cat/{i}.png': plain('PNG')(pixels('train', 0, i)) for i in range(3)},
        ['found one class, cat', 'at least two'],
    ),
    'test alone': (
        lambda: {name: content for name, content in photos().items() if name.startswith('valid')},
        ['6 images for valid', 'none to train on'],
    ),
    'a class that nothing trains': (
        one('valid/dog/0.png', plain('PNG')(pixels('train', 0, 9))),
        ['no training image of dog', 'correct its name'],
    ),
    'several labels in a list': (
        lambda: {'images/0.png': JPEG, 'labels.jsonl': b'{"file_name": "images/0.png", "label": ["a", "b"]}'},
        ['2 labels (a, b)', 'expected one class'],
    ),
    'several labels in columns': (
        csv_of('image,ape,bee,cat\nape0.png,1,1,0\nbee0.png,0,1,0\n'),
        ['line 2', 'ape and bee set to 1', 'one class per image'],
    ),
    'an image twice': (
        csv_of('name,label\nimages/ape0.png,a\nimages/ape0.png,b\n'),
        ['line 3', 'appears twice, first in line 2, with another label'],
    ),
    'a missing image': (csv_of('name,label\nimages/ape7.png,a\n'), ['line 2', 'there is no file images/ape7.png']),
    'no label': (csv_of('name,label\nimages/ape0.png,\n'), ['line 2', 'has no label']),
    'another split': (
        csv_of('name,label,split\nape0.png,a,one\n'),
        ["line 2: 'one' in column split", 'expected train, valid or test'],
    ),
    'two columns of labels': (
        csv_of('name,label,species\nape0.png,a,x\nbee0.png,a,y\n'),
        ['label and species', '--columns'],
    ),
    'no column of labels': (
        csv_of('name,height,width\nape0.png,7,8\n'),
        ['no column of labels', '--columns name=…,label=…'],
    ),
    'another encoding': (
        lambda: csv_of('')() | {'labels.csv': 'name,label\nape0.png,\xe4ffle\n'.encode('latin-1')},
        ['line 2: not UTF-8', 'save it as UTF-8'],
    ),
    'a path outside the folder': (
        csv_of('name,label\n../../x.png,a\n'),
        ['line 2', 'is outside the folder', 'relative'],
    ),
    'names of several files': (
        lambda: {'a/0.png': JPEG, 'b/0.png': JPEG, 'labels.csv': b'name,label\n0.png,a\n'},
        ['several files are called 0.png'],
    ),
    'Parquet without images': (
        lambda: {'train.parquet': table_bytes(label=[0, 1], text=['a', 'b'])},
        ['no column of image bytes', 'label, text', '--columns'],
    ),
    'Parquet with lists of labels': (
        lambda: {'train.parquet': table_bytes(image=[dict(bytes=JPEG, path='')] * 2, label=[[0, 1], [1]])},
        ['[0, 1]', 'one class per image'],
    ),
    'a broken Parquet': (lambda: {'train.parquet': b'PAR1 and no more'}, ['cannot read', 'train.parquet']),
    'arrays of objects': (
        lambda: {'x_train.npy': array_bytes(np.array([{}], object)), 'y_train.npy': array_bytes(np.zeros(1))},
        ['Python objects', 'save an array of numbers'],
    ),
    'volumes': (lambda: array_files(np.zeros((2, 9, 9, 9), np.uint8), np.zeros(2, int)), ['volumes are not supported']),
    'flat arrays': (
        lambda: array_files(np.zeros((2, 784), np.uint8), np.zeros(2, int)),
        ['has shape 2×784', 'height × width'],
    ),
    'several labels in an array': (
        lambda: array_files(np.zeros((2, 9, 9), np.uint8), np.ones((2, 5), int)),
        ['5 labels per image', 'expected one class'],
    ),
    'fractions as labels': (
        lambda: array_files(np.zeros((2, 9, 9), np.uint8), np.array([0.5, 1])),
        ['fractions such as 0.5'],
    ),
    'a pickle that runs': (
        lambda: {'cifar-10-batches-py/data_batch_1': pickle.dumps(print)},
        ['it would run builtins.print'],
    ),
    'shards without labels': (
        lambda: {'train-0.tar': tar_bytes({'0.png': JPEG})},
        ['no image with a label', '000.jpg and 000.cls'],
    ),
}


def table_bytes(**columns):
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def array_bytes(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def array_files(images, labels):
    return {'x_train.npy': array_bytes(images), 'y_train.npy': array_bytes(labels)}


def tar_bytes(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()
