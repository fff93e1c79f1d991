"Forms of data hubs: Parquet and Arrow of Hugging Face, shards of WebDataset, .npz of MedMNIST and Keras."

import io
import json

import numpy as np

from samples.containers import tar_bytes
from samples.images import ALL, BOTH, CLASSES, TRAIN, images_and_labels, writer


def parquet(splits=BOTH, strings=False, arrow=False):
    "Files of Hugging Face, with ClassLabels or names of classes"
    files = {}
    for split in splits:
        table = hugging_face_table(split, strings)
        name = dict(valid='validation').get(split, split)
        if arrow:
            files[f'{name}/data-00000-of-00001.arrow'] = arrow_bytes(table)
        else:
            files[f'data/{name}-00000-of-00001.parquet'] = parquet_bytes(table, row_group_size=5)
    return files


def hugging_face_table(split, strings):
    import pyarrow

    images, labels = images_and_labels(split)
    columns = dict(
        image=[dict(bytes=writer('PNG')(image), path=None) for image in images],
        label=[CLASSES[label] for label in labels] if strings else labels,
    )
    features = dict(
        image=dict(_type='Image'),
        label=dict(_type='Value', dtype='string') if strings else dict(names=CLASSES, _type='ClassLabel'),
    )
    metadata = {'huggingface': json.dumps(dict(info=dict(features=features)))}
    return pyarrow.table(columns).replace_schema_metadata(metadata)


def arrow_bytes(table):
    import pyarrow

    out = io.BytesIO()
    with pyarrow.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, 3)
    return out.getvalue()


def parquet_bytes(table, **options):
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, **options)
    return out.getvalue()


def shards(splits=BOTH, label_suffix='cls'):
    "One shard of WebDataset per split"
    files = {}
    for split in splits:
        members = {}
        for n, (image, label) in enumerate(zip(*images_and_labels(split))):
            text = CLASSES[label] if label_suffix == 'cls' else json.dumps(dict(label=CLASSES[label], width=16))
            members |= {f'{n:05}.png': writer('PNG')(image), f'{n:05}.{label_suffix}': text.encode()}
        files[f'{split}-000000.tar'] = tar_bytes(members)
    return files


MEDMNIST_SPLITS = dict(train='train', valid='val', test='test')


def npz(splits=ALL, image_name='{}_images', label_name='{}_labels', split_names=MEDMNIST_SPLITS, column=True):
    "One file with arrays of each split; labels are a column or a vector"
    out, arrays = io.BytesIO(), {}
    for split in splits:
        images, labels = images_and_labels(split)
        arrays[image_name.format(split_names[split])] = np.stack(images)
        arrays[label_name.format(split_names[split])] = np.array(labels)[:, None] if column else np.array(labels)
    np.savez(out, **arrays)
    return {'set.npz': out.getvalue()}


HUBS = {  # name: files, splits, arguments of find_difference
    'Hugging Face Parquet': (parquet, BOTH, {}),
    'Parquet, labels as text': (lambda: parquet(strings=True), BOTH, {}),
    'Parquet, train alone': (lambda: parquet(TRAIN), TRAIN, {}),
    'Parquet, three splits': (lambda: parquet(ALL), ALL, {}),
    'Arrow, save_to_disk': (lambda: parquet(arrow=True), BOTH, {}),
    'WebDataset, .cls': (shards, BOTH, {}),
    'WebDataset, .json': (lambda: shards(label_suffix='json'), BOTH, {}),
}

ARRAYS = {  # name: files, splits; each is loaded by its own path
    'MedMNIST .npz': (npz, ALL),
    'Keras .npz': (lambda: npz(BOTH, 'x_{}', 'y_{}', dict(train='train', valid='test'), False), BOTH),
    '.npz without splits': (lambda: npz(TRAIN, 'images', 'labels'), TRAIN),
}
