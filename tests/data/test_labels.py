"Images with several labels: where they are found, and what is refused"

import io
import json
import tarfile

import numpy as np
import pytest
from samples.labels import LABELS, draw_labels, indicators, write_columns, write_lists, write_text

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.from_python import from_arrays, from_dataset, from_frame

WRITERS = dict(
    semicolons=lambda folder, rows: write_text(folder, rows, ';'),
    bars=lambda folder, rows: write_text(folder, rows, ' | '),
    commas=lambda folder, rows: write_text(folder, rows, ', '),
    lists=write_lists,
    columns=write_columns,
)


@pytest.fixture
def rows(tmp_path):
    return draw_labels(tmp_path / 'zoo')


def check(data, rows):
    assert data.several and data.classes == list(LABELS)
    for split in ('train', 'valid'):
        assert (getattr(data, split)[1] == indicators(rows, split)).all()


@pytest.mark.parametrize('kind', WRITERS)
def test_layouts_of_several_labels(tmp_path, rows, kind):
    WRITERS[kind](tmp_path / 'zoo', rows)
    data = load(str(tmp_path / 'zoo'), labels='several')
    check(data, rows)
    without = sum(not labels for *_, labels in rows)
    assert any(f'images without any label: {without}' in note for note in data.notes)
    assert data.name == 'zoo,labels=several' and data.load_arguments['labels'] == 'several'


def test_spaces_only_where_the_user_says_so(tmp_path, rows):
    write_text(tmp_path / 'zoo', rows, ' ')
    check(load(str(tmp_path / 'zoo'), labels='spaces'), rows)
    with pytest.raises(KdfastError, match='no image has more than one label.*--labels spaces'):
        load(str(tmp_path / 'zoo'), labels='several')


def test_columns_that_the_user_names(tmp_path, rows):
    write_columns(tmp_path / 'zoo', rows, extra=['age'])
    with pytest.raises(KdfastError, match='--columns label=A.B.C'):
        load(str(tmp_path / 'zoo'), labels='several')
    check(load(str(tmp_path / 'zoo'), labels='several', columns='label=ant+bee+cat'), rows)
    with pytest.raises(KdfastError, match='no column dog'):
        load(str(tmp_path / 'zoo'), labels='several', columns='label=ant+dog')


@pytest.mark.parametrize('kind', ['lists', 'columns'])
def test_without_the_option_there_is_a_question(tmp_path, rows, kind):
    WRITERS[kind](tmp_path / 'zoo', rows)
    with pytest.raises(KdfastError, match='if images have several labels, pass --labels several'):
        load(str(tmp_path / 'zoo'))


def test_text_without_the_option_gives_a_note(tmp_path, rows):
    write_text(tmp_path / 'zoo', [row for row in rows if row[2]])
    found = load(str(tmp_path / 'zoo'))
    assert any('unless --labels several' in note for note in found.notes) and not found.several


def test_what_has_one_label_is_refused(images, tmp_path, rows):
    with pytest.raises(KdfastError, match='give each image one label'):
        load(str(images), labels='several')
    with pytest.raises(KdfastError, match='the images of digits have one label each'):
        load('digits', labels='several')
    with pytest.raises(KdfastError, match='--labels two: expected one, several or spaces'):
        load(str(images), labels='two')
    write_columns(tmp_path / 'zoo', rows)
    text = (tmp_path / 'zoo' / 'labels.csv').read_text()
    (tmp_path / 'zoo' / 'labels.csv').write_text(text.replace(',1,', ',2,', 1))
    with pytest.raises(KdfastError, match='line .*is neither 0 nor 1'):
        load(str(tmp_path / 'zoo'), labels='several', columns='label=ant+bee+cat')


def test_a_test_split_without_labels_is_left_out(tmp_path, rows):
    drawn = [
        (name, 'test' if i < 5 else split, [] if i < 5 else labels) for i, (name, split, labels) in enumerate(rows)
    ]
    write_text(tmp_path / 'zoo', drawn)
    data = load(str(tmp_path / 'zoo'), labels='several')
    assert data.test is None and any('test images without labels: 5' in note for note in data.notes)


def test_a_fraction_is_held_out_and_every_label_trains(tmp_path):
    rows = [(name, 'train', labels) for name, _, labels in draw_labels(tmp_path / 'zoo')]
    rows[0] = (*rows[0][:2], ['dodo'])  # the only one
    write_text(tmp_path / 'zoo', rows)
    data = load(str(tmp_path / 'zoo'), labels='several')
    assert len(data.valid[1]) == round(0.2 * 96) and data.train[1].sum(0).min() == 1
    assert (data.train[1].sum(0) + data.valid[1].sum(0)).tolist() == [
        sum(c in labels for *_, labels in rows) for c in data.classes
    ]


def test_python_objects(tmp_path, rows):
    pandas = pytest.importorskip('pandas')
    frame = pandas.DataFrame([dict(name=n, labels=x, split=s) for n, s, x in rows])
    check(from_frame(frame, tmp_path / 'zoo', labels='several'), rows)
    images = np.random.default_rng(0).integers(0, 255, (96, 8, 8, 3), dtype=np.uint8)
    y = np.concatenate([indicators(rows, split) for split in ('train', 'valid')])
    check(from_arrays((images[:64], y[:64]), (images[64:], y[64:]), classes=list(LABELS), labels='several'), rows)
    named = [(image, [LABELS[k] for k in np.flatnonzero(row)]) for image, row in zip(images, y)]
    check(from_dataset(named[:64], named[64:], classes=list(LABELS), labels='several'), rows)
    vectors = list(zip(images, y))
    check(from_dataset(vectors[:64], vectors[64:], classes=list(LABELS), labels='several'), rows)
    kept = from_frame(frame, tmp_path / 'zoo', labels='several')
    check(load(kept.load_arguments['source']), rows)
    with pytest.raises(KdfastError, match='were decoded with several labels each'):
        load(kept.load_arguments['source'], labels='one')
    with pytest.raises(KdfastError, match='a 0 or 1 for each class'):
        from_arrays((images, y + 1), labels='several')


def test_sequences_of_hugging_face(tmp_path, rows):
    parquet = pytest.importorskip('pyarrow.parquet')
    import pyarrow

    feature = dict(_type='Sequence', feature=dict(_type='ClassLabel', names=list(LABELS)))
    info = {b'huggingface': json.dumps(dict(info=dict(features=dict(labels=feature)))).encode()}
    for split in ('train', 'valid'):
        of_split = [row for row in rows if row[1] == split]
        images = [(tmp_path / 'zoo' / name).read_bytes() for name, *_ in of_split]
        labels = [[LABELS.index(label) for label in labels] for *_, labels in of_split]
        table = pyarrow.table(dict(image=images, labels=labels)).replace_schema_metadata(info)
        (tmp_path / 'hub').mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / 'hub' / f'{split}-00000.parquet')
    check(load(str(tmp_path / 'hub'), labels='several'), rows)
    with pytest.raises(KdfastError, match='if images have several labels, pass --labels several'):
        load(str(tmp_path / 'hub'))


def test_lists_in_webdataset(tmp_path, rows):
    (tmp_path / 'shards').mkdir()
    for split in ('train', 'valid'):
        with tarfile.open(tmp_path / 'shards' / f'{split}-000.tar', 'w') as tar:
            for i, (name, _, labels) in enumerate(row for row in rows if row[1] == split):
                parts = dict(png=(tmp_path / 'zoo' / name).read_bytes(), json=json.dumps(dict(labels=labels)).encode())
                for suffix, content in parts.items():
                    info = tarfile.TarInfo(f'{i:03}.{suffix}')
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    check(load(str(tmp_path / 'shards'), labels='several'), rows)
    with pytest.raises(KdfastError, match='if images have several labels, pass --labels several'):
        load(str(tmp_path / 'shards'))


def test_check_counts_labels(tmp_path, rows, kdfast):
    write_text(tmp_path / 'zoo', rows)
    found = json.loads(kdfast('check', tmp_path / 'zoo', '--labels', 'several', '--json').out)
    per_image = [len(labels) for _, split, labels in rows if split == 'train']
    assert found['labels_per_image']['training'] == {str(n): per_image.count(n) for n in range(max(per_image) + 1)}
    assert found['images']['training'] == 64
    assert found['classes']['bee']['validation'] == indicators(rows, 'valid')[:, 1].sum()
    view = kdfast('check', tmp_path / 'zoo', '--labels', 'several')
    assert 'training images by their number of labels: 0:' in view.out and '--labels several' in view.out
