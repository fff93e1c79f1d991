"Tiny ImageNet as published, and copies of it that were changed."

import pytest
import samples
from samples.official import WORDNET, tiny_imagenet

from kdfast.core.errors import KdfastError
from kdfast.data import load


def write(tmp_path, change=lambda files: None, top='tiny-imagenet-200'):
    files = tiny_imagenet(top)
    change(files)
    return str(samples.to_folder(tmp_path / 'tiny', files))


@pytest.mark.parametrize('top', ['tiny-imagenet-200', 'a/b', '.'])
def test_it_is_read_as_published(tmp_path, top):
    found = load(write(tmp_path, top=top))
    assert not samples.find_difference(found, samples.BOTH) and found.test is None
    assert [note for note in found.notes if 'skipped' in note] == [
        f'skipped, test images without labels: 3 ({"" if top == "." else f"{top}/"}test/images/test_0.JPEG, …)'
    ]


@pytest.mark.parametrize(
    'file,text,problem',
    [
        ('val/val_annotations.txt', 'val_99.JPEG\tn01443537', 'line 1: there is no file .*val/images/val_99.JPEG'),
        ('val/val_annotations.txt', 'val_00.JPEG', 'line 1: expected the name of an image, a tab and its class'),
        ('val/val_annotations.txt', 'val_00.JPEG\tn01443537\n' * 2, 'line 2: .*val_00.JPEG appears twice'),
        ('val/val_annotations.txt', 'val_00.JPEG\tn9', 'no training image of n9'),
        ('val/val_annotations.txt', '', 'has no validation image'),
    ],
)
def test_wrong_annotations_are_refused(tmp_path, file, text, problem):
    with pytest.raises(KdfastError, match=problem):
        load(write(tmp_path, lambda files: files.update({f'tiny-imagenet-200/{file}': text.encode()})))


def test_classes_without_names_or_images_are_noted(tmp_path):
    def change(files):
        del files['tiny-imagenet-200/words.txt']
        files['tiny-imagenet-200/wnids.txt'] += b'\nn09999999'

    found = load(write(tmp_path, change))
    assert found.classes == WORDNET
    assert 'classes of wnids.txt without training images: 1 (n09999999)' in found.notes
    assert 'classes are called by their numbers, because there is no words.txt' in found.notes


def test_equal_names_are_ignored(tmp_path):
    words = '\n'.join(f'{name}\tcrane, a kind' for name in WORDNET)
    found = load(write(tmp_path, lambda files: files.update({'tiny-imagenet-200/words.txt': words.encode()})))
    assert found.classes == WORDNET and any('are not unique' in note for note in found.notes)


def test_validation_images_in_folders_of_classes_are_read_as_such(tmp_path):
    def move(files):
        for name in [name for name in files if '/val/images/' in name]:
            label = int(name.rpartition('_')[2][0])
            files[name.replace('/images/', f'/{WORDNET[label]}/images/')] = files.pop(name)

    found = load(write(tmp_path, move))
    assert not samples.find_difference(found, samples.BOTH, classes=WORDNET)
