"Numbers of rows, patients and labels are not taken for names of images, nor for labels."

import json

import pytest
import samples
from samples.rejected import table_bytes
from test_image_names import draw, labels_by_image

from kdfast.core.errors import KdfastError
from kdfast.data import load

N = 10
LABELS = ['cat'] * 5 + ['dog'] * 5


def write(folder, header, row, name='labels.csv'):
    "row(k) for the image 9 - k"
    (folder / name).write_text('\n'.join([header, *(','.join(map(str, row(k))) for k in range(N))]))


@pytest.mark.parametrize(
    'header,row',
    [
        ('id,filename,label', lambda k: (k, f'{9 - k}.png', LABELS[k])),
        ('filename,id,label', lambda k: (f'{9 - k}.png', k, LABELS[k])),
        (',slide,label', lambda k: (k, f'{9 - k}.png', LABELS[k])),
        (',slide,label', lambda k: (k, 9 - k, LABELS[k])),
        ('index,slide,species seen', lambda k: (k, 9 - k, LABELS[k])),
        ('Unnamed: 0,image,label', lambda k: (k, 9 - k, LABELS[k])),
        (',image,what', lambda k: (k, f'{9 - k}.png', LABELS[k])),
        ('id,slide,label', lambda k: (k, f'./{9 - k}.png', LABELS[k])),
        ('patient,picture,label', lambda k: (k, f'{9 - k}.png', LABELS[k])),
        ('image_id,number,label', lambda k: (9 - k, k, LABELS[k])),
        ('id,age,label', lambda k: (9 - k, k // 2, LABELS[k])),
        ('filename,id,disease', lambda k: (f'{9 - k}.png', k // 4, LABELS[k])),
        ('id,filename,disease', lambda k: (k % 2, f'{9 - k}.png', LABELS[k])),
        ('filename,id,cat,dog', lambda k: (f'{9 - k}.png', k, int(k < 5), int(k > 4))),
        ('filename,Id', lambda k: (f'{9 - k}.png', LABELS[k])),
        ('id,cat,dog', lambda k: (9 - k, int(k < 5), int(k > 4))),
        ('id,url,label', lambda k: (9 - k, f'https://example.org/{k}.jpg', LABELS[k])),
        ('id,mask,label', lambda k: (9 - k, f'{k}.gif' if k < 3 else '', LABELS[k])),
        ('image,name,label', lambda k: (f'{9 - k}.png', 'x', LABELS[k])),
    ],
)
def test_images_are_named_by_files_rather_than_numbers(tmp_path, header, row):
    draw(tmp_path, *(f'{k}.png' for k in range(N)))
    write(tmp_path, header, row)
    assert labels_by_image(load(str(tmp_path))) == {9 - k: LABELS[k] for k in range(N)}


def test_names_are_stems_rather_than_numbers(tmp_path):
    "Images 0.png to 9.png are of another part"
    draw(tmp_path, *(f'{k}.png' for k in range(N)), *(f's{k}.png' for k in range(N)))
    write(tmp_path, 'id,slide,label', lambda k: (k, f's{9 - k}', LABELS[k]))
    assert labels_by_image(load(str(tmp_path))) == {19 - k: LABELS[k] for k in range(N)}


@pytest.mark.parametrize(
    'header,row,message',
    [
        ('id,filename,label', lambda k: (k, f'img{k}.png', LABELS[k]), 'found id and filename'),
        ('id,filename,label', lambda k: (k, f'{k if k < 2 else 90 + k}.png', LABELS[k]), 'found id and filename'),
        (',slide,label', lambda k: (k, f'img{k}.png', LABELS[k]), 'found a column without a name and slide'),
        ('id,patient,label', lambda k: (k, 9 - k, LABELS[k]), 'found id and patient'),
        ('name,label', lambda k: (f'img{k}.png', k % 2), 'there is no file img0.png'),
        ('image,id,width,height', lambda k: (f'{k}.png', k, k, k), 'found no column of labels'),
    ],
)
def test_what_is_unclear_is_asked(tmp_path, header, row, message):
    draw(tmp_path, *(f'{k}.png' for k in range(N)))
    write(tmp_path, header, row)
    with pytest.raises(KdfastError) as e:
        load(str(tmp_path))
    assert message in e.value.message and (message.startswith('there') or '--columns name=' in e.value.message)


def test_an_id_that_is_not_the_label_gives_a_note(tmp_path):
    draw(tmp_path, *(f'{k}.png' for k in range(N)))
    write(tmp_path, 'filename,id,disease', lambda k: (f'{k}.png', k // 4, LABELS[k]))
    assert 'columns that are not used beside disease: 1 (id)' in load(str(tmp_path)).notes
    write(tmp_path, 'filename,id,label', lambda k: (f'{k}.png', k // 4, LABELS[k]))
    assert not any(note.startswith('columns') for note in load(str(tmp_path)).notes)


def test_columns_named_after_numbers_are_a_header(tmp_path):
    draw(tmp_path, *(f'{k}.png' for k in range(N)))
    write(tmp_path, 'name,0,1', lambda k: (f'{k}.png', int(k < 5), int(k > 4)))
    assert labels_by_image(load(str(tmp_path))) == {k: str(int(k > 4)) for k in range(N)}


def test_an_id_is_no_label_in_shards_and_parquet(tmp_path):
    "They have no other column of labels; id alone is one"
    pytest.importorskip('pyarrow')
    images, labels = samples.images_and_labels('train')
    pictures = [samples.writer('PNG')(image) for image in images]
    for more in {}, dict(disease='flu'):
        records = [dict(id=label) | more for label in labels]
        files = {f'{n}.png': picture for n, picture in enumerate(pictures)}
        files |= {f'{n}.json': json.dumps(record).encode() for n, record in enumerate(records)}
        shards = samples.to_folder(tmp_path / f'shards{len(more)}', {'train-0.tar': samples.tar_bytes(files)})
        table = dict(image=pictures) | {key: [record[key] for record in records] for key in records[0]}
        parquet = samples.to_folder(tmp_path / f'parquet{len(more)}', {'train.parquet': table_bytes(**table)})
        for path in shards, parquet:
            if more:
                with pytest.raises(KdfastError, match='no column of labels|no image with a label'):
                    load(str(path))
            else:
                assert load(str(path)).classes == ['0', '1', '2']
