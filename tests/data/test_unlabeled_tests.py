"A test split in which no image has a label is left out, with one note, in whatever format it is."

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from samples.images import encode

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.from_python import from_arrays, from_dataset, from_frame

SPLITS = ['train'] * 12 + ['valid'] * 4 + ['test'] * 3
PIXELS = np.random.default_rng(0).integers(0, 255, (len(SPLITS), 8, 8, 3), dtype=np.uint8)
NAMES = [f'{i:02}.png' for i in range(len(SPLITS))]


def rows(missing, split='test'):
    "(name, label, split) of each image"
    labels = [missing if of_image == split else ('cat', 'dog')[i % 2] for i, of_image in enumerate(SPLITS)]
    return list(zip(NAMES, labels, SPLITS))


def draw(folder, name_of=lambda name, split: name):
    for name, split, image in zip(NAMES, SPLITS, PIXELS):
        file = folder / name_of(name, split)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


def text(value):
    return '' if value is None or value != value else str(value)


def write_csv(folder, table):
    draw(folder)
    (folder / 'labels.csv').write_text('\n'.join(['name,label,split', *(','.join(map(text, row)) for row in table)]))
    return load(str(folder))


def write_json_lines(folder, table):
    draw(folder)
    lines = [json.dumps(dict(zip(('name', 'label', 'split'), row))) for row in table]
    (folder / 'labels.jsonl').write_text('\n'.join(lines))
    return load(str(folder))


def write_columns(folder, table):
    draw(folder)
    cells = {'cat': '1,0', 'dog': '0,1'}
    lines = [f'{name},{cells.get(label, ",")},{split}' for name, label, split in table]
    (folder / 'labels.csv').write_text('\n'.join(['name,cat,dog,split', *lines]))
    return load(str(folder))


def write_tables(folder, table):
    draw(folder, lambda name, split: f'images/{name}')
    for wanted in ('train', 'valid', 'test'):
        lines = [f'{name},{text(label)}' for name, label, split in table if split == wanted]
        (folder / f'{wanted}.csv').write_text('\n'.join(['name,label', *lines]))
    return load(str(folder))


def write_table_without_column(folder, table):
    write_tables(folder, table)
    names = [name for name, _, split in table if split == 'test']
    (folder / 'test.csv').write_text('\n'.join(['name', *names]))
    return load(str(folder))


def write_folders(folder, table, top=''):
    draw(folder, lambda name, split: f'{top}{split}/{name}')
    lines = [f'{top}{split}/{name},{text(label)}' for name, label, split in table]
    (folder / 'labels.csv').write_text('\n'.join(['name,label', *lines]))
    return load(str(folder))


def make_frame(folder, table):
    draw(folder)
    return from_frame(pd.DataFrame(table, columns=['name', 'label', 'split']), folder)


def make_frame_of_folders(folder, table, absolute=False):
    draw(folder, lambda name, split: f'{split}/{name}')
    top = f'{folder}/' if absolute else ''
    frame = pd.DataFrame([(f'{top}{split}/{name}', label) for name, label, split in table], columns=['name', 'label'])
    return from_frame(frame, folder)


def write_parquet(folder, table):
    pytest.importorskip('pyarrow')
    frame = pd.DataFrame(table, columns=['name', 'label', 'split'])
    frame['image'] = [encode(Image.fromarray(image), 'PNG') for image in PIXELS]
    for split, part in frame.groupby('split'):
        part[['image', 'label']].to_parquet(folder / f'{split}.parquet')
    return load(str(folder))


def write_parquet_without_column(folder, table):
    write_parquet(folder, table)
    frame = pd.read_parquet(folder / 'test.parquet')
    frame[['image']].to_parquet(folder / 'test.parquet')
    return load(str(folder))


def write_shards(folder, table, suffix='json'):
    for wanted in ('train', 'valid', 'test'):
        with tarfile.open(folder / f'{wanted}-000.tar', 'w') as tar:
            for (name, label, split), image in zip(table, PIXELS):
                parts = dict(png=encode(Image.fromarray(image), 'PNG'))
                parts[suffix] = json.dumps(dict(label=label)).encode() if suffix == 'json' else text(label).encode()
                for end, content in parts.items() if split == wanted else ():
                    info = tarfile.TarInfo(f'{name[:2]}.{end}')
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return load(str(folder))


def numbers(table):
    "Labels as an array: numbers, of which NaN is none"
    return np.array([dict(cat=0, dog=1).get(label, np.nan if text(label) == '' else label) for _, label, _ in table])


def write_arrays(folder, table):
    labels = numbers(table)
    of_split = {split: np.array(SPLITS) == split for split in ('train', 'valid', 'test')}
    arrays = {f'{split}_images': PIXELS[rows] for split, rows in of_split.items()}
    arrays |= {f'{split}_labels': labels[rows] for split, rows in of_split.items()}
    np.savez(folder / 'pets.npz', **arrays)
    return load(str(folder / 'pets.npz'))


def write_arrays_without_labels(folder, split, form, suffix):
    labels, of_split = numbers(rows(-1)), {name: np.array(SPLITS) == name for name in ('train', 'valid', 'test')}
    arrays = {form.format(role='x', split=name): PIXELS[which] for name, which in of_split.items()}
    arrays |= {form.format(role='y', split=name): labels[which] for name, which in of_split.items() if name != split}
    if suffix == '.npz':
        np.savez(folder / 'pets.npz', **arrays)
        return folder / 'pets.npz'
    for name, array in arrays.items():
        np.save(folder / f'{name}.npy', array)
    return folder


@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
@pytest.mark.parametrize('form', ['{role}_{split}', '{split}_{role}', 'pets_{role}_{split}_0'])
def test_arrays_of_images_without_labels(tmp_path, form, suffix):
    (tmp_path / 'test').mkdir()
    data = load(str(write_arrays_without_labels(tmp_path / 'test', 'test', form, suffix)))
    assert (len(data.train[1]), len(data.valid[1]), data.test) == (12, 4, None)
    name = form.format(role='x', split='test')
    assert [note for note in data.notes if 'skipped' in note] == [
        f'skipped, test images without labels: 1 ({name}.npy)'
    ]
    (tmp_path / 'valid').mkdir()
    with pytest.raises(KdfastError, match='no validation image has a label .* label them, or leave them out'):
        load(str(write_arrays_without_labels(tmp_path / 'valid', 'valid', form, suffix)))


def make_pairs(folder, table):
    labels, parts = numbers(table), (slice(0, 12), slice(12, 16), slice(16, 19))
    return from_arrays(*((PIXELS[part], labels[part]) for part in parts), classes=['0', '1'])


def make_datasets(folder, table):
    items = [(image, dict(cat=0, dog=1).get(label, label)) for image, (_, label, _) in zip(PIXELS, table)]
    return from_dataset(items[:12], items[12:16], items[16:], classes=['0', '1'])


FORMATS = dict(
    csv=write_csv,
    json_lines=write_json_lines,
    columns=write_columns,
    tables=write_tables,
    no_column=write_table_without_column,
    folders=write_folders,
    folders_below=lambda folder, table: write_folders(folder, table, 'images/'),
    frame=make_frame,
    frame_of_folders=make_frame_of_folders,
    frame_of_absolute_names=lambda folder, table: make_frame_of_folders(folder, table, absolute=True),
    parquet=write_parquet,
    parquet_no_column=write_parquet_without_column,
    json_of_shards=write_shards,
    cls_of_shards=lambda folder, table: write_shards(folder, table, 'cls'),
    arrays=write_arrays,
    pairs=make_pairs,
    datasets=make_datasets,
)


@pytest.mark.parametrize('missing', [None, float('nan'), '', -1], ids=repr)
@pytest.mark.parametrize('kind', FORMATS)
def test_a_test_split_without_labels_is_left_out(kind, missing, tmp_path):
    if kind == 'parquet' and missing == -1:
        missing = '-1'  # a column has one type
    data = FORMATS[kind](tmp_path, rows(missing))
    assert (len(data.train[1]), len(data.valid[1]), data.test) == (12, 4, None)
    assert len(data.classes) == 2
    skipped = [note for note in data.notes if 'skipped' in note]
    n = 1 if kind == 'parquet_no_column' else 3  # the file
    assert len(skipped) == 1 and skipped[0].startswith(f'skipped, test images without labels: {n} ('), data.notes


@pytest.mark.parametrize('missing', ['?', 'unknown', 'N/A', 'Unlabeled'])
@pytest.mark.parametrize('kind', sorted(FORMATS.keys() - {'columns', 'no_column', 'parquet_no_column', 'datasets'}))
def test_one_word_for_missing_labels_of_tests(kind, missing, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))  # equal images have the first notes
    data = FORMATS[kind](tmp_path, rows(missing))
    assert (len(data.train[1]), len(data.valid[1]), data.test) == (12, 4, None)
    assert f'{missing} is no label, because all test images have it, and no others' in data.notes
    assert 'skipped, test images without labels: 3 (' in ' '.join(data.notes)


def test_a_word_for_missing_labels_that_other_images_have_is_a_class(tmp_path):
    table = [(name, 'unknown' if i == 0 else label, split) for i, (name, label, split) in enumerate(rows('unknown'))]
    data = write_csv(tmp_path, table)
    assert data.classes == ['cat', 'dog', 'unknown'] and len(data.test[1]) == 3


def test_another_word_that_all_test_images_have_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(KdfastError, match='no training image of later.*if later means that .* not known, leave'):
        write_csv(tmp_path, rows('later'))


@pytest.mark.parametrize('split', ['train', 'valid'])
@pytest.mark.parametrize('kind', sorted(FORMATS.keys() - {'no_column', 'parquet_no_column'}))
def test_another_split_without_labels_is_refused(kind, split, tmp_path):
    expected = 'has no label|missing|no validation image has a label|none to train on|expected the number'
    with pytest.raises(KdfastError, match=expected):
        FORMATS[kind](tmp_path, rows(None, split))


@pytest.mark.parametrize('extra', ['13.png\n', '13.png,cat,dog\n', '00.png,dog\n'])
def test_images_of_rows_that_cannot_be_read_are_skipped_once(extra, tmp_path):
    draw(tmp_path)
    lines = [f'{name},{"cat" if i % 2 else "dog"}' for i, name in enumerate(NAMES) if i != 13]
    (tmp_path / 'labels.csv').write_text('\n'.join(['name,label', *lines, extra]))
    data = load(str(tmp_path), skip_broken=True)
    assert [note for note in data.notes if 'skipped' in note][0].startswith('skipped, rows that cannot be read: 1')
    assert sum('not in labels.csv' in note for note in data.notes) == (extra[:2] == '00')


def test_an_image_of_no_row_is_still_noted(tmp_path):
    table = rows(None)
    write_csv(tmp_path, table[:-1])
    data = load(str(tmp_path))
    assert 'skipped, test images without labels: 2 (16.png, …)' in data.notes
    assert 'skipped, not in labels.csv: 1 (18.png)' in data.notes
