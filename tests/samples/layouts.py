"Layouts of files and tables: where each image lies, and the tables beside the images."

import csv
import io
import json
from pathlib import Path

from samples.images import ALL, BOTH, CLASSES, FORMATS, TRAIN, all_images, make_image


def table_rows(names, header, delimiter=',', key=lambda name: name, cell=lambda split: split):
    "A table of name, label and split; `names` are those of the images by (split, label, number)"
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, lineterminator='\n')
    table.writerow(header)
    for (split, label, _), name in names.items():
        table.writerow([key(name), CLASSES[label], cell(split)][: len(header)])
    return text.getvalue().encode()


def json_lines(names, **keys):
    records = [dict(zip(keys, (name, CLASSES[label], split))) for (split, label, _), name in names.items()]
    return '\n'.join(map(json.dumps, records)).encode()


def in_split(split, label, i):
    return f'{split}/{CLASSES[label]}/{i}'


def in_one_folder(split, label, i):
    return f'images/{CLASSES[label]}-{split}-{i}'


def in_split_called(train, valid):
    return lambda split, label, i: f'{dict(train=train, valid=valid)[split]}/{CLASSES[label]}/{i}'


def no_table(names):
    return {}


def of_split(names, split):
    return {key: name for key, name in names.items() if key[0] == split}


def metadata(names):
    def file_name(name):
        return Path(name).name

    return {
        f'{split}/metadata.csv': table_rows(of_split(names, split), ['file_name', 'label'], key=file_name)
        for split in BOTH
    }


def lists(names):
    def lines(split):
        return [name.removeprefix('images/').partition('.')[0] for name in of_split(names, split).values()]

    return {
        f'meta/{name}.txt': '\n'.join(lines(split)).encode() for split, name in (('train', 'train'), ('valid', 'test'))
    }


LAYOUTS = {  # name: splits, where an image lies, tables
    'class': (TRAIN, lambda split, label, i: f'{CLASSES[label]}/{i}', no_table),
    'class, folders below': (TRAIN, lambda split, label, i: f'{CLASSES[label]}/{i % 2}/{i}', no_table),
    'train alone': (TRAIN, in_split, no_table),
    'train, valid': (BOTH, in_split, no_table),
    'train, valid, test': (ALL, in_split, no_table),
    'train, validation': (BOTH, in_split_called('train', 'validation'), no_table),
    'Training, Testing': (BOTH, in_split_called('Training', 'Testing'), no_table),
    'train_set, test_set': (BOTH, in_split_called('train_set', 'test_set'), no_table),
    'TRAIN, VAL': (BOTH, in_split_called('TRAIN', 'VAL'), no_table),
    'train2017, val2017': (BOTH, in_split_called('train2017', 'val2017'), no_table),
    'seg_train/seg_train': (BOTH, in_split_called('seg_train/seg_train', 'seg_test/seg_test'), no_table),
    'class/split': (BOTH, lambda split, label, i: f'{CLASSES[label]}/{split}/{i}', no_table),
    'labels.csv': (
        ALL,
        in_one_folder,
        lambda names: {'labels.csv': table_rows(names, ['name', 'label', 'split'])},
    ),
    'labels.csv, no split': (
        TRAIN,
        in_one_folder,
        lambda names: {'labels.csv': table_rows(names, ['filename', 'category'])},
    ),
    'labels.csv, is_valid 1/0': (
        BOTH,
        in_one_folder,
        lambda names: {
            'labels.csv': table_rows(names, ['image_id', 'class', 'is_valid'], cell=lambda split: int(split == 'valid'))
        },
    ),
    'train.csv, semicolons, no suffix': (
        TRAIN,
        in_one_folder,
        lambda names: {'train.csv': table_rows(names, ['id', 'breed'], ';', lambda name: Path(name).stem)},
    ),
    'labels.tsv': (
        BOTH,
        in_one_folder,
        lambda names: {'labels.tsv': table_rows(names, ['path', 'target', 'subset'], '\t')},
    ),
    'labels.jsonl': (
        BOTH,
        in_one_folder,
        lambda names: {'labels.jsonl': json_lines(names, file_name=0, label=0, split=0)},
    ),
    'metadata.csv a split': (BOTH, lambda split, label, i: f'{split}/{label}-{i}', metadata),
    'lists of a split': (BOTH, lambda split, label, i: f'images/{CLASSES[label]}/{split}{i}', lists),
}


def layout_files(layout, kind):
    "Content by name of a layout with images of a format"
    splits, place, tables = LAYOUTS[layout]
    suffix, write, *_ = FORMATS[kind]
    names = {(split, label, i): place(split, label, i) + suffix for split, label, i, _ in all_images(splits)}
    return {name: write(make_image(*key)) for key, name in names.items()} | tables(names)
