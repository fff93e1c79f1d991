"Images with several labels: where they are found, and what is refused"

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from samples.images import encode
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


INDICATORS = [[1, 0, 0, 1], [0, 1, 1, 0]] * 12 + [[1, 1, 1, 1]] * 12
PIXELS = np.random.default_rng(0).integers(0, 255, (len(INDICATORS), 8, 8, 3), dtype=np.uint8)


def write_json_lines(folder, lists):
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(folder / f'{i:02}.png')
    lines = [json.dumps(dict(name=f'{i:02}.png', label=one)) for i, one in enumerate(lists)]
    (folder / 'labels.jsonl').write_text('\n'.join(lines))
    return load(str(folder), labels='several')


def write_texts(folder, lists):
    write_json_lines(folder, [';'.join(map(str, one)) for one in lists])
    return load(str(folder), labels='several')


def write_parquet(folder, lists, names=None):
    parquet = pytest.importorskip('pyarrow.parquet')
    import pyarrow

    images = [encode(Image.fromarray(image), 'PNG') for image in PIXELS]
    feature = dict(_type='Sequence', feature=dict(_type='ClassLabel', names=names))
    info = {b'huggingface': json.dumps(dict(info=dict(features=dict(label=feature)))).encode()}
    table = pyarrow.table(dict(image=images, label=lists)).replace_schema_metadata(info if names else {})
    parquet.write_table(table[:18], folder / 'train-0.parquet')
    parquet.write_table(table[18:], folder / 'train-1.parquet')
    return load(str(folder), labels='several')


def write_shards(folder, lists):
    with tarfile.open(folder / 'train-000.tar', 'w') as tar:
        for i, (image, one) in enumerate(zip(PIXELS, lists)):
            parts = dict(png=encode(Image.fromarray(image), 'PNG'), json=json.dumps(dict(labels=one)).encode())
            for suffix, content in parts.items():
                info = tarfile.TarInfo(f'{i:03}.{suffix}')
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return load(str(folder), labels='several')


def make_frame(folder, lists, cell=list):
    pandas = pytest.importorskip('pandas')
    write_json_lines(folder, INDICATORS)
    names = [f'{i:02}.png' for i in range(len(lists))]
    return from_frame(pandas.DataFrame(dict(name=names, label=list(map(cell, lists)))), folder, labels='several')


LISTS = dict(
    lines=write_json_lines,
    text=write_texts,
    parquet=write_parquet,
    shards=write_shards,
    frame=make_frame,
    arrays=lambda folder, lists: make_frame(folder, lists, np.array),
    dataset=lambda folder, lists: from_dataset(list(zip(PIXELS, lists)), labels='several'),
)
NOTED = 'lists of 0 and 1 are read as a 0 or 1 for each class'


def all_labels(data):
    return np.concatenate([data.train[1], data.valid[1]]).tolist()


@pytest.mark.parametrize('kind', LISTS)
@pytest.mark.parametrize('convert', [int, float, bool])
def test_lists_with_a_value_for_each_class(kind, convert, tmp_path):
    data = LISTS[kind](tmp_path, [list(map(convert, one)) for one in INDICATORS])
    assert data.classes == ['0', '1', '2', '3'] and any(NOTED in note for note in data.notes)
    assert sorted(all_labels(data)) == sorted(INDICATORS)


@pytest.mark.parametrize('kind', LISTS)
@pytest.mark.parametrize('lists', [[[0, 1], [1, 0]] * 18, [[0, 1, 1], [1, 0], [1, 1, 0]] * 12])
def test_lists_that_may_mean_either_are_refused(kind, lists, tmp_path):
    with pytest.raises(KdfastError, match='may be numbers of classes, or a 0 or 1 for each class'):
        LISTS[kind](tmp_path, lists)


@pytest.mark.parametrize('kind', sorted(LISTS.keys() - {'text', 'arrays'}))
@pytest.mark.parametrize('unknown', [None, float('nan'), -1, ''], ids=repr)
@pytest.mark.parametrize('others', [[[0, 1, 0], [1, 1, 0]], []], ids=['some', 'all'])
def test_lists_with_a_value_for_each_class_are_complete_or_empty(kind, unknown, others, tmp_path):
    if kind == 'parquet' and unknown == '':
        pytest.skip('the format has no such value')
    with pytest.raises(KdfastError, match='lacks values'):
        LISTS[kind](tmp_path, [[1, unknown, 1], *(others or [[unknown, 1, 0], [0, 0, unknown]])] * 12)


@pytest.mark.parametrize('kind', sorted(LISTS.keys() - {'text', 'arrays'}))
def test_nothing_is_known_of_a_list_without_any_value(kind, tmp_path):
    data = LISTS[kind](tmp_path, [*INDICATORS[:-1], [None] * 4])
    assert data.classes == ['0', '1', '2', '3'] and 'images without any label: 1' in [n[:27] for n in data.notes]


@pytest.mark.parametrize('kind', sorted(LISTS.keys() - {'arrays'}))
def test_lists_of_numbers_remain_numbers(kind, tmp_path):
    data = LISTS[kind](tmp_path, [[0, 1], [1], [0]] * 12)
    assert sorted(all_labels(data)) == sorted([[1, 1], [0, 1], [1, 0]] * 12)
    assert not any(NOTED in note for note in data.notes)


def test_positions_have_the_names_of_a_list(tmp_path):
    for folder in ('right', 'wrong'):
        (tmp_path / folder).mkdir()
    data = write_parquet(tmp_path / 'right', INDICATORS, list('abcd'))
    assert data.classes == list('abcd') and sorted(all_labels(data)) == sorted(INDICATORS)
    for wrong in (list('abc'), list('abcde')):
        with pytest.raises(KdfastError, match='may be numbers of classes, or'):
            write_parquet(tmp_path / 'wrong', INDICATORS, wrong)
        with pytest.raises(KdfastError, match='may be numbers of classes, or'):
            from_dataset(list(zip(PIXELS, INDICATORS)), classes=wrong, labels='several')
        with pytest.raises(KdfastError, match=f'are arrays of length 4, but there are {len(wrong)} classes'):
            from_arrays((PIXELS, np.array(INDICATORS)), classes=wrong, labels='several')


@pytest.mark.parametrize('cell', [list, tuple, set, frozenset, np.array], ids=lambda cell: cell.__name__)
def test_cells_of_a_frame_that_hold_several_labels(cell, tmp_path):
    pandas = pytest.importorskip('pandas')
    write_json_lines(tmp_path, INDICATORS)
    lists = [['cat', 'dog'], ['cat'], ['emu', 'cat']] * 12
    frame = pandas.DataFrame(dict(name=[f'{i:02}.png' for i in range(36)], label=list(map(cell, lists))))
    data = from_frame(frame, tmp_path, labels='several')
    assert data.classes == ['cat', 'dog', 'emu']
    assert sorted(all_labels(data)) == sorted([[1, 1, 0], [1, 0, 0], [1, 0, 1]] * 12)
    with pytest.raises(KdfastError, match='2 labels .cat, dog.: .*pass --labels several'):
        from_frame(frame, tmp_path)


def test_lists_that_were_written_as_text_are_refused(tmp_path):
    for text in ("['cat', 'dog']", '[1, 0, 1]'):
        with pytest.raises(KdfastError, match='are a list written as text: separate labels by ;'):
            write_json_lines(tmp_path, [text] * 36)


@pytest.mark.parametrize('missing', [None, float('nan'), np.float32('nan'), 'NA', 'NaT'])
def test_missing_labels_of_a_frame(missing, tmp_path):
    pandas = pytest.importorskip('pandas')
    missing = dict(NA=pandas.NA, NaT=pandas.NaT).get(missing, missing) if isinstance(missing, str) else missing
    write_json_lines(tmp_path, INDICATORS)
    names = [f'{i:02}.png' for i in range(36)]
    frame = pandas.DataFrame(dict(name=names, label=pandas.Series(['cat', 'dog', missing] * 12, dtype=object)))
    with pytest.raises(KdfastError, match='row 2: 02.png has no label .12 such rows'):
        from_frame(frame, tmp_path)
    assert from_frame(frame, tmp_path, skip_broken=True).classes == ['cat', 'dog']
    frame = frame.assign(label=[['cat', 'dog'] if i % 2 else ['cat', missing] for i in range(36)])
    assert from_frame(frame, tmp_path, labels='several').classes == ['cat', 'dog']


def write_cells(folder, lists):
    write_json_lines(folder, [['cat', 'dog']] * len(lists))
    (folder / 'labels.jsonl').unlink()
    lines = [f'{i:02}.png,{";".join(one or [])}' for i, one in enumerate(lists)]
    (folder / 'labels.csv').write_text('\n'.join(['name,label', *lines]))
    return load(str(folder), labels='several')


NONE = dict(null=None, NaN=float('nan'), text='', blank=' ', list=[], list_of_null=[None], list_of_text=[''])
NOT_IN = dict(cells={'NaN', 'blank', 'list_of_null'}, parquet={'NaN', 'text', 'blank'})  # cannot be written so


@pytest.mark.parametrize('missing', NONE)
@pytest.mark.parametrize('kind', [*sorted(LISTS.keys() - {'text', 'arrays'}), 'cells'])
def test_an_image_without_labels_is_the_same_in_every_format(kind, missing, tmp_path):
    if missing in NOT_IN.get(kind, ()):
        pytest.skip('the format has no such value')
    lists = [['cat', 'dog'], ['cat'], NONE[missing]] * 12
    write = LISTS | dict(cells=write_cells, frame=lambda folder, lists: make_frame(folder, lists, lambda one: one))
    data = write[kind](tmp_path, lists)
    assert data.classes == ['cat', 'dog'] and sorted(all_labels(data)) == sorted([[1, 1], [1, 0], [0, 0]] * 12)
    assert 'images without any label: 12' in data.notes and not any('skipped' in note for note in data.notes)


def test_a_validation_split_without_labels_is_refused(tmp_path):
    pandas = pytest.importorskip('pandas')
    write_json_lines(tmp_path, INDICATORS)
    labels = [['cat', 'dog'], ['cat'], ['dog']] * 10 + [None] * 6
    names = [f'{i:02}.png' for i in range(36)]
    frame = pandas.DataFrame(dict(name=names, label=labels, split=['train'] * 30 + ['valid'] * 6))
    with pytest.raises(KdfastError, match='no validation image has a label'):
        from_frame(frame, tmp_path, labels='several')


def test_a_test_split_without_labels_is_left_out_of_every_format(tmp_path):
    pandas = pytest.importorskip('pandas')
    pytest.importorskip('pyarrow')
    write_json_lines(tmp_path, INDICATORS)
    labels = [['cat', 'dog'], ['cat'], ['dog']] * 10 + [None] * 6
    splits = ['train'] * 20 + ['valid'] * 10 + ['test'] * 6
    frame = pandas.DataFrame(dict(name=[f'{i:02}.png' for i in range(36)], label=labels, split=splits))
    (tmp_path / 'hub').mkdir()
    images = [encode(Image.fromarray(image), 'PNG') for image in PIXELS]
    for split, start, end in (('train', 0, 20), ('valid', 20, 30), ('test', 30, 36)):
        part = pandas.DataFrame(dict(image=images[start:end], label=labels[start:end]))
        part.to_parquet(tmp_path / 'hub' / f'{split}.parquet')
    for data in (from_frame(frame, tmp_path, labels='several'), load(str(tmp_path / 'hub'), labels='several')):
        assert data.test is None and len(data.train[1]) == 20 and len(data.valid[1]) == 10
        assert any('skipped, test images without labels: 6' in note for note in data.notes)


def test_missing_labels_of_hubs(tmp_path):
    for name, write in dict(parquet=write_parquet, shards=write_shards).items():
        (tmp_path / name).mkdir()
        with pytest.raises(KdfastError, match='if images have several labels|one label'):
            write(tmp_path / name, [0.0, 1.0, float('nan')] * 12)
        assert {label.split('.')[0] for label in load(str(tmp_path / name)).classes} == {'0', '1'}
        data = write(tmp_path / name, [['cat', 'dog'], ['cat', None]] * 18)
        assert data.classes == ['cat', 'dog'] and sorted(all_labels(data)) == sorted([[1, 1], [1, 0]] * 18)
