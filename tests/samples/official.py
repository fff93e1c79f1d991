"Official files of published data sets, small, with the images of this package."

import gzip
import io
import pickle

import numpy as np

from samples.hubs import HUBS
from samples.images import ALL, BOTH, CLASSES, all_images, images_and_labels, make_image, writer

SPLIT_FILES = (('train', 'train'), ('test', 'valid'))  # name in the files, split


def batches(split, n_batches=1, side=32):
    "Lists of (image, label)"
    pairs = list(zip(*images_and_labels(split, side)))
    return [pairs[k::n_batches] for k in range(n_batches)]


def pixel_rows(batch):
    return np.stack([image.transpose(2, 0, 1).reshape(-1) for image, _ in batch])


def dump_all(folder, contents, dump):
    return {
        f'{folder}/{name}': dump({key.encode(): value for key, value in content.items()})
        for name, content in contents.items()
    }


def cifar10(dump=pickle.dumps):
    parts = {f'data_batch_{k}': batch for k, batch in enumerate(batches('train', 5), 1)}
    parts['test_batch'] = batches('valid')[0]
    contents = {
        name: dict(data=pixel_rows(batch), labels=[label for _, label in batch]) for name, batch in parts.items()
    }
    return dump_all('cifar-10-batches-py', contents | {'batches.meta': dict(label_names=CLASSES)}, dump)


def cifar100(dump=pickle.dumps):
    contents = {}
    for name, split in SPLIT_FILES:
        (batch,) = batches(split)
        labels = [label for _, label in batch]
        contents[name] = dict(data=pixel_rows(batch), fine_labels=labels, coarse_labels=[0] * len(labels))
    contents['meta'] = dict(fine_label_names=CLASSES, coarse_label_names=['all'])
    return dump_all('cifar-100-python', contents, dump)


def cifar_records(batch, n_labels):
    return b''.join(
        bytes([0] * (n_labels - 1) + [label]) + image.transpose(2, 0, 1).tobytes() for image, label in batch
    )


def cifar10_binary():
    parts = {f'data_batch_{k}.bin': batch for k, batch in enumerate(batches('train', 5), 1)}
    parts['test_batch.bin'] = batches('valid')[0]
    files = {f'cifar-10-batches-bin/{name}': cifar_records(batch, 1) for name, batch in parts.items()}
    return files | {'cifar-10-batches-bin/batches.meta.txt': '\n'.join(CLASSES).encode()}


def cifar100_binary():
    files = {f'cifar-100-binary/{name}.bin': cifar_records(batches(split)[0], 2) for name, split in SPLIT_FILES}
    return files | {'cifar-100-binary/fine_label_names.txt': '\n'.join(CLASSES).encode()}


def mat(**variables):
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, variables)
    return out.getvalue()


def svhn():
    files = {}
    for name, split in SPLIT_FILES:
        images, labels = images_and_labels(split, 32)
        files[f'{name}_32x32.mat'] = mat(X=np.stack(images, -1), y=np.array([[label or 10] for label in labels]))
    return files


def idx(compressed=True):
    files = {}
    for name, split in (('train', 'train'), ('t10k', 'valid')):
        images, labels = images_and_labels(split)
        gray = np.stack([image.max(2) for image in images])
        files[f'{name}-images-idx3-ubyte'] = np.array([0x803, *gray.shape], '>u4').tobytes() + gray.tobytes()
        files[f'{name}-labels-idx1-ubyte'] = np.array([0x801, len(labels)], '>u4').tobytes() + bytes(labels)
    return {f'{name}.gz': gzip.compress(content) for name, content in files.items()} if compressed else files


def stl10():
    files = {'stl10_binary/class_names.txt': '\n'.join(CLASSES).encode(), 'stl10_binary/unlabeled_X.bin': b'x'}
    for name, split in SPLIT_FILES:
        images, labels = images_and_labels(split, 96)
        files[f'stl10_binary/{name}_X.bin'] = b''.join(image.transpose(2, 1, 0).tobytes() for image in images)
        files[f'stl10_binary/{name}_y.bin'] = bytes(label + 1 for label in labels)
    return files


def flowers():
    files, labels, ids = {}, [], dict(trnid=[], valid=[], tstid=[])
    for n, (split, label, _, image) in enumerate(all_images(ALL), 1):
        files[f'jpg/image_{n:05}.jpg'] = writer('PNG')(image)
        labels.append(label + 1)
        ids[dict(train='trnid', valid='valid', test='tstid')[split]].append(n)
    return files | {
        'imagelabels.mat': mat(labels=np.array([labels])),
        'setid.mat': mat(**{name: np.array([value]) for name, value in ids.items()}),
    }


def food101():
    names = {(split, label, i): f'{CLASSES[label]}/{split}{i}' for split, label, i, _ in all_images(BOTH)}
    files = {f'food-101/images/{name}.jpg': writer('PNG')(make_image(*key)) for key, name in names.items()}
    for list_name, split in SPLIT_FILES:
        lines = [name for key, name in names.items() if key[0] == split]
        files[f'food-101/meta/{list_name}.txt'] = '\n'.join(lines).encode()
    return files


def pets():
    names = {
        (split, label, i): f'{CLASSES[label].title()}_{100 * (split == "valid") + i}'
        for split, label, i, _ in all_images(BOTH)
    }
    files = {f'images/{name}.jpg': writer('PNG')(make_image(*key)) for key, name in names.items()}
    files['annotations/list.txt'] = b'#Image CLASS-ID SPECIES BREED ID\n'
    for list_name, split in (('trainval', 'train'), ('test', 'valid')):
        lines = [f'{name} {key[1] + 1} 1 1' for key, name in names.items() if key[0] == split]
        files[f'annotations/{list_name}.txt'] = '\n'.join(lines).encode()
    return files


WORDNET = ['n01443537', 'n01629819', 'n02058221']


def tiny_imagenet(top='tiny-imagenet-200'):
    "Test images have no labels"
    lines, files = [], {f'{top}/test/images/test_{i}.JPEG': writer('PNG')(make_image('test', 0, i)) for i in range(3)}
    for split, label, i, image in all_images(BOTH):
        name = f'val_{label}{i}.JPEG' if split == 'valid' else f'{WORDNET[label]}_{i}.JPEG'
        folder = 'val' if split == 'valid' else f'train/{WORDNET[label]}'
        files[f'{top}/{folder}/images/{name}'] = writer('PNG')(image)
        if split == 'valid':
            lines.append(f'{name}\t{WORDNET[label]}\t0\t32\t44\t62')
    files |= {f'{top}/train/{name}/{name}_boxes.txt': f'{name}_0.JPEG\t0\t10\t63\t58'.encode() for name in WORDNET}
    words = [f'{name}\t{label}, a kind of animal' for name, label in zip(WORDNET, CLASSES)] + ['n00001740\tentity']
    texts = {'val/val_annotations.txt': lines, 'wnids.txt': WORDNET[::-1], 'words.txt': words}
    return files | {f'{top}/{name}': '\n'.join(text).encode() for name, text in texts.items()}


SOURCES = HUBS | {  # name: files, splits, arguments of find_difference
    'CIFAR-10, Python': (cifar10, BOTH, dict(side=32)),
    'CIFAR-100, Python': (cifar100, BOTH, dict(side=32)),
    'CIFAR-10, binary': (cifar10_binary, BOTH, dict(side=32)),
    'CIFAR-100, binary': (cifar100_binary, BOTH, dict(side=32)),
    'SVHN': (svhn, BOTH, dict(side=32, classes=['0', '1', '2'])),
    'MNIST, compressed': (idx, BOTH, dict(brightest=True, classes=['0', '1', '2'])),
    'MNIST, uncompressed': (lambda: idx(False), BOTH, dict(brightest=True, classes=['0', '1', '2'])),
    'STL-10': (stl10, BOTH, dict(side=96)),
    'Oxford 102 Flowers': (flowers, ALL, dict(classes=['001', '002', '003'])),
    'Food-101': (food101, BOTH, {}),
    'Tiny ImageNet': (tiny_imagenet, BOTH, {}),
    'Oxford-IIIT Pet': (pets, BOTH, dict(classes=['Ape', 'Bee', 'Cat'])),
}
