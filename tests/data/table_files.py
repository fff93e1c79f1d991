"A folder of images with a table of labels, and the same images in folders of classes."

import shutil

from conftest import draw

HEADER = 'fname,label,is_valid\n'


def make_table_folder(tmp_path):
    "pets/pictures/<class>-<number>.png with pets/labels.csv"
    draw(tmp_path / 'drawn', 5, seed=0)
    folder = tmp_path / 'pets'
    (folder / 'pictures').mkdir(parents=True)
    for file in (tmp_path / 'drawn').rglob('*.png'):
        file.rename(folder / 'pictures' / f'{file.parent.name}-{file.name}')
    write_labels(folder)
    return folder


def write_labels(folder, header=HEADER, words=('True', 'False'), encoding='utf-8'):
    "Write labels.csv with two images of each class for validation; `words` mean valid and train"
    names = [file.name for file in sorted((folder / 'pictures').iterdir())]
    rows = [
        f'pictures/{name},{name[:3]},{words[0] if name[4:7] < "002" else words[1]}'.removesuffix(',') for name in names
    ]
    (folder / 'labels.csv').write_text(header + '\n'.join(rows) + '\n', encoding=encoding)


def copy_to_class_folders(folder, path):
    "Copy the images to <split>/<class>/ in another folder"
    for file in (folder / 'pictures').iterdir():
        target = path / ('valid' if file.name[4:7] < '002' else 'train') / file.name[:3]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / file.name[4:])
    return path
