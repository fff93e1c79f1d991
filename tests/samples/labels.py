"Separable images with several labels: each label is a bright corner."

import csv
import json

import numpy as np
from PIL import Image

LABELS = 'ant', 'bee', 'cat'
CORNERS = (slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4))


def draw_labels(folder, n_train=64, n_valid=32, seed=0):
    "Write n images; return rows of (name, split, labels). Label k is the k-th corner; some images have no label."
    random, rows = np.random.default_rng(seed), []
    (folder / 'images').mkdir(parents=True)
    for i in range(n_train + n_valid):
        has = random.random(3) < 0.45
        image = random.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        for corner, present in zip(CORNERS, has):
            if present:
                image[corner] += 150
        name = f'images/{i:03}.png'
        Image.fromarray(image).save(folder / name)
        rows.append((name, 'train' if i < n_train else 'valid', [label for label, h in zip(LABELS, has) if h]))
    return rows


def write_text(folder, rows, separator=';'):
    "labels.csv with a column of text"
    with open(folder / 'labels.csv', 'w', newline='') as file:
        csv.writer(file).writerows([['name', 'labels', 'split'], *([n, separator.join(x), s] for n, s, x in rows)])


def write_lists(folder, rows):
    "metadata.jsonl with a list, as Hugging Face has it"
    lines = [json.dumps(dict(file_name=name, labels=labels, split=split)) for name, split, labels in rows]
    (folder / 'metadata.jsonl').write_text('\n'.join(lines))


def write_columns(folder, rows, extra=()):
    "labels.csv with a column of 0 and 1 for each label"
    with open(folder / 'labels.csv', 'w', newline='') as file:
        table = [[n, *(int(label in x) for label in LABELS), s, *[7] * len(extra)] for n, s, x in rows]
        csv.writer(file).writerows([['image', *LABELS, 'split', *extra], *table])


def indicators(rows, split):
    "(n, labels) of 0 and 1"
    return np.array([[label in labels for label in LABELS] for _, s, labels in rows if s == split], int)
