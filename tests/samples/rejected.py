"Files that are rejected, and words that the error must contain."

import io
import pickle

import numpy as np

from samples.containers import tar_bytes
from samples.hubs import parquet_bytes
from samples.images import CLASSES, make_image, writer


def photo_files(**more):
    files = {
        f'train/{name}/{i}.png': writer('PNG')(make_image('train', label, i))
        for label, name in enumerate(CLASSES)
        for i in range(3)
    }
    files |= {
        f'valid/{name}/{i}.png': writer('PNG')(make_image('valid', label, i))
        for label, name in enumerate(CLASSES)
        for i in range(2)
    }
    return files | more


def with_file(name, content):
    return lambda: photo_files(**{name: content})


def only_files(suffix, content=b'x'):
    return lambda: {f'{name}/{i}{suffix}': content for name in CLASSES for i in range(3)}


def with_table(text, **more):
    return lambda: (
        {
            f'images/{name}{i}.png': writer('PNG')(make_image('train', label, i))
            for label, name in enumerate(CLASSES)
            for i in range(3)
        }
        | {'labels.csv': text.encode()}
        | more
    )


def table_bytes(**columns):
    import pyarrow

    return parquet_bytes(pyarrow.table(columns))


def array_bytes(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def array_files(images, labels):
    return {'x_train.npy': array_bytes(images), 'y_train.npy': array_bytes(labels)}


JPEG = writer('JPEG')(make_image('train', 0, 0))
REJECTED = {
    'HEIC': (
        with_file('train/ape/x.heic', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'),
        ['train/ape/x.heic', 'HEIC', 'pip install pillow-heif', '--skip-broken'],
    ),
    'HEIC called .jpg': (
        with_file('train/ape/x.jpg', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'),
        ['train/ape/x.jpg', 'HEIC', 'pip install pillow-heif'],
    ),
    'JPEG XL': (with_file('train/ape/x.jxl', b'\xff\x0a' + b'x' * 20), ['JPEG XL', 'pip install pillow-jxl-plugin']),
    'a cut JPEG': (
        with_file('train/ape/x.jpg', JPEG[: len(JPEG) // 2]),
        ['train/ape/x.jpg', 'truncated', 'replace or remove'],
    ),
    'a cut PNG': (with_file('train/ape/x.png', writer('PNG')(make_image('train', 0, 0))[:80]), ['truncated']),
    'an empty file': (with_file('train/ape/x.jpg', b''), ['an empty file']),
    'a web page': (with_file('train/ape/x.jpg', b'<!DOCTYPE html><html>'), ['web page', 'download']),
    'a Git LFS pointer': (
        with_file('train/ape/x.jpg', b'version https://git-lfs.github.com/spec/v1\noid sha256:0'),
        ['git lfs pull'],
    ),
    'SVG called .png': (with_file('train/ape/x.png', b'<?xml version="1.0"?><svg xmlns="x"/>'), ['SVG', 'render']),
    'PDF called .jpg': (with_file('train/ape/x.jpg', b'%PDF-1.7'), ['PDF', 'render']),
    'DICOM called .png': (with_file('train/ape/x.png', b'\0' * 128 + b'DICM'), ['DICOM', 'PNG']),
    'another size': (
        with_file('train/ape/x.png', writer('PNG')(make_image('train', 0, 0, 20))),
        ['differ in size', '20×20', '--size 128'],
    ),
    'DICOM': (only_files('.dcm'), ['9 × .dcm', 'DICOM', 'PNG']),
    'camera raw': (only_files('.NEF'), ['camera raw', 'develop']),
    'videos': (only_files('.mp4'), ['videos', 'frames']),
    'SVG': (only_files('.svg'), ['vector graphics', 'render']),
    'archives': (lambda: {'train.zip': b'PK', 'test.zip': b'PK'}, ['2 × .zip', 'pass one by its path']),
    'text': (only_files('.txt'), ['9 × .txt', 'expected']),
    'nothing': (lambda: {'.keep': b''}, ['found no images, it is empty', 'expected']),
    'no folders of classes': (
        lambda: {f'{i}.png': writer('PNG')(make_image('train', 0, i)) for i in range(3)},
        ['3 images', 'no folder of a class', 'labels'],
    ),
    'one class': (
        lambda: {f'cat/{i}.png': writer('PNG')(make_image('train', 0, i)) for i in range(3)},
        ['found one class, cat', 'at least two'],
    ),
    'test alone': (
        lambda: {name: content for name, content in photo_files().items() if name.startswith('valid')},
        ['6 images for valid', 'none to train on'],
    ),
    'a class that nothing trains': (
        with_file('valid/dog/0.png', writer('PNG')(make_image('train', 0, 9))),
        ['no training image of dog', 'correct its name'],
    ),
    'several labels in a list': (
        lambda: {'images/0.png': JPEG, 'labels.jsonl': b'{"file_name": "images/0.png", "label": ["a", "b"]}'},
        ['2 labels (a, b)', 'expected one class'],
    ),
    'several labels in columns': (
        with_table('image,ape,bee,cat\nape0.png,1,1,0\nbee0.png,0,1,0\n'),
        ['line 2', 'ape and bee set to 1', 'one class per image'],
    ),
    'an image twice': (
        with_table('name,label\nimages/ape0.png,a\nimages/ape0.png,b\n'),
        ['line 3', 'appears twice, first in line 2, with another label'],
    ),
    'a missing image': (with_table('name,label\nimages/ape7.png,a\n'), ['line 2', 'there is no file images/ape7.png']),
    'no label': (with_table('name,label\nimages/ape0.png,\n'), ['line 2', 'has no label']),
    'another split': (
        with_table('name,label,split\nape0.png,a,one\n'),
        ["line 2: 'one' in column split", 'expected train, valid or test'],
    ),
    'two columns of labels': (
        with_table('name,label,species\nape0.png,a,x\nbee0.png,a,y\n'),
        ['label and species', '--columns'],
    ),
    'no column of labels': (
        with_table('name,height,width\nape0.png,7,8\n'),
        ['no column of labels', '--columns name=…,label=…'],
    ),
    'another encoding': (
        lambda: with_table('')() | {'labels.csv': 'name,label\nape0.png,\xe4ffle\n'.encode('latin-1')},
        ['line 2: not UTF-8', 'save it as UTF-8'],
    ),
    'a path outside the folder': (
        with_table('name,label\n../../x.png,a\n'),
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
