"Folds of a cross-validation are refused, in names of folders and of files; one fold is read."

import json
import shutil

import numpy as np
import pytest
import samples
from samples.hubs import hugging_face_table, parquet_bytes
from test_split_names import counts, draw_folders

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.layouts.folds import find_folds

WORD = 'seem to be folds of a cross-validation'
FOLDS = ['{split}_fold{n}', 'fold{n}_{split}', '{split}-CV {n}', '{split}_split_{n}', 'fold_{n}/{split}']


@pytest.mark.parametrize(
    'names,n_folds',
    [
        (['train_fold1', 'train_fold2', 'valid_fold1'], 2),
        (['fold-1', 'fold-2', 'fold-3', 'test'], 3),
        (['train_fold1', 'valid_fold1'], 0),
        (['train_fold1', 'test_fold2'], 0),
        (['split1', 'split2'], 0),  # parts
        (['train_split1', 'train_split2'], 2),
        (['scaffold1', 'scaffold2', 'blindfold 1', 'blindfold 2'], 0),
        (['fold1-train-00000-of-00002', 'fold1-train-00001-of-00002'], 0),
        (['train1', 'train2'], 0),
    ],
)
def test_names_that_differ_in_the_number_of_a_fold(names, n_folds):
    assert len(find_folds((name,) for name in names)) == n_folds


def write_rows(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.csv':
        file.write_text('\n'.join(map(','.join, [('name', 'label'), *rows])))
    else:
        lines = [json.dumps(dict(name=name, label=label)) for name, label in rows]
        file.write_text('\n'.join(lines) if file.suffix == '.jsonl' else f'[{",".join(lines)}]')


def write_tables(folder, form, suffix):
    draw_folders(folder / 'images', 6, 'cat', 'dog')
    files = sorted((folder / 'images').rglob('*.png'))
    for n in (1, 2):
        for split in ('train', 'valid'):
            rows = [(f.name, f.parent.name) for i, f in enumerate(files) if (i % 3 == n) == (split == 'valid')]
            write_rows(folder / f'{form.format(split=split, n=n)}{suffix}', rows)


def write_class_folders(folder, form, suffix):
    for n in (1, 2):
        for split, size in dict(train=4, valid=2).items():
            draw_folders(folder, size, *(f'{form.format(split=split, n=n)}/{name}' for name in ('cat', 'dog')))


def write_arrays(folder, form, suffix):
    for n in (1, 2):
        for split, size in dict(train=8, valid=4).items():
            pixels = np.random.default_rng([n, size]).integers(0, 256, (size, 8, 8, 3), dtype=np.uint8)
            for role, array in dict(x=pixels, y=np.arange(size) % 2).items():
                file = folder / f'{form.format(split=split, n=n)}_{role}.npy'
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, array)


def write_files(folder, form, suffix):
    shards = samples.shards()
    for n in (1, 2):
        for split in samples.BOTH:
            name = f'{form.format(split=split, n=n)}{suffix}'
            table = hugging_face_table(split, strings=False)
            content = shards[f'{split}-000000.tar'] if suffix == '.tar' else parquet_bytes(table)
            samples.to_folder(folder, {name: content})


WRITERS = {'.csv': write_tables, '.json': write_tables, '.jsonl': write_tables, '.npy': write_arrays}
WRITERS |= {'/': write_class_folders, '.tar': write_files, '.parquet': write_files}


@pytest.mark.parametrize(
    'suffix,form',
    [('/', form) for form in FOLDS]
    + [('.csv', form) for form in FOLDS]
    + [(suffix, form) for suffix in ('.json', '.jsonl', '.npy', '.tar', '.parquet') for form in FOLDS[:4:3]],
)
def test_folds_are_refused_and_one_of_them_is_read(tmp_path, suffix, form):
    if suffix == '.parquet':
        pytest.importorskip('pyarrow')
    WRITERS[suffix](tmp_path / 'pets', form, suffix)
    with pytest.raises(KdfastError, match=f'{WORD}.*(keep those of one fold, or join|read one with --data)'):
        load(str(tmp_path / 'pets'))
    for path in sorted((tmp_path / 'pets').rglob('*2*')):
        if path.exists() and path.suffix != '.png':
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = load(str(tmp_path / 'pets'))
    assert counts(found) == [8, 4] or not samples.find_difference(found, samples.BOTH)


@pytest.mark.parametrize('suffix', ['.csv', '.json', '.jsonl'])
def test_an_image_in_two_tables_is_refused_with_the_name_of_both(tmp_path, suffix):
    write_tables(tmp_path / 'pets', '{split}_{n}', suffix)
    with pytest.raises(KdfastError, match=rf'train_2{suffix}: line .* is also in train_1{suffix}: keep one .*rows'):
        load(str(tmp_path / 'pets'))


def test_lists_of_other_folds_are_noted(tmp_path):
    draw_folders(tmp_path / 'pets' / 'images', 6, 'cat', 'dog')
    files = sorted((tmp_path / 'pets').rglob('*.png'))
    for n in (1, 2):
        for split in ('train', 'valid'):
            names = [f'{f.parent.name}/{f.name}' for i, f in enumerate(files) if (i % 3 == n) == (split == 'valid')]
            (tmp_path / 'pets' / f'{split}_fold{n}.txt').write_text('\n'.join(names))
    found = load(str(tmp_path / 'pets'))
    assert 'lists that are not used, beside another of the same split: 2 (train_fold2.txt, …)' in found.notes
    assert counts(found) == [8, 4]
