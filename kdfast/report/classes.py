"""What the HTML page shows of classes: confusion matrices, accuracy by class, and images with confident errors."""

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image

from kdfast.analysis.confusion import CLASS_COLUMNS, confusion_summary, part_of_matrix
from kdfast.report.confusion import MAX_CLASSES, confusion_sentences, listed_classes
from kdfast.report.headline import on_same_images
from kdfast.runs.find import resolve_run_name
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import teachers_of
from kdfast.runs.upstream_paths import upstream_entries
from kdfast.stats.confusion import hardest, most_alike, most_confused, named_pairs

STUDENTS = ('exp2', 'kd', 'exp1', 'baseline')  # the first one with a result is compared with its teacher
MANY_RECIPES, FEWER_CLASSES = 6, 25  # of more recipes, matrices show fewer classes
MAX_SIDE = 64  # pixels of an image on the page
MAX_IMAGES = 64  # on the page, about: it must stay small
MIN_IMAGES = 4  # of each recipe


def confusion_matrices(
    folders: Sequence[RunDir],  # Finished runs that classify
) -> list[dict]:
    "Return one matrix per recipe, summed over its seeds; of many classes, those that are confused most."
    by_recipe = defaultdict(list)
    for folder in folders:
        by_recipe[folder.recipe].append(folder)
    n_shown = MAX_CLASSES if len(by_recipe) <= MANY_RECIPES else FEWER_CLASSES
    matrices = []
    for recipe, runs in by_recipe.items():
        classes, _ = runs[0].confusion()
        total = np.sum([run.confusion()[1] for run in runs], axis=0)
        shown = sorted(hardest(total, n_shown))
        counts, shares = part_of_matrix(total, shown)
        matrix = dict(
            recipe=recipe,
            n=len(runs),
            n_classes=len(classes),
            classes=[classes[c] for c in shown],
            rows=[
                (classes[c], (int(total[c].sum()), heat_cells(counts[at], shares[at], at)))
                for at, c in enumerate(shown)
            ],
            most_alike=most_alike(classes, total),
            pairs=named_pairs(most_confused(total), classes, total),
        )
        matrices.append(matrix)
    return matrices


def heat_cells(
    counts: np.ndarray,  # (classes,) of a row
    shares: np.ndarray,  # (classes,) of the whole row
    diagonal: int,  # Position of the correct predictions
) -> list[tuple[int, str]]:
    "Return count and style of each cell: blue on the diagonal, red elsewhere, deeper with the share."
    deep = [min(9, ceil(10 * share)) if at == diagonal else min(9, ceil(30 * share)) for at, share in enumerate(shares)]
    styles = [f'{"d" if at == diagonal else "h"}{level}' if level else '' for at, level in enumerate(deep)]
    return list(zip(counts.tolist(), styles))


def class_accuracy_rows(
    folders: Sequence[RunDir],  # Finished runs that classify
) -> dict | None:  # None if no student has a teacher
    "Compare a student with its teacher class by class: the first of STUDENTS, with its first seed."
    readable = [folder for folder in folders if folder.has('predictions.npz')]
    names = [resolve_run_name(readable, name) for name in STUDENTS]
    students = [folder for name in names for folder in readable if folder.recipe == name]
    pairs = ((student, teacher) for student in students if (teacher := class_teacher(student, readable)))
    student, teacher = next(pairs, (None, None))
    if student is None:
        return None
    found = confusion_summary(student, teacher)
    classes, which = listed_classes(found)
    return dict(
        rows=[(c, *(found[column][c] for column in CLASS_COLUMNS)) for c in classes],
        which=which,
        student=student.recipe,
        teacher=teacher.recipe,
        seed=student.seed,
        sentences=list(confusion_sentences(found, (student.recipe, teacher.recipe))),
    )


def class_teacher(
    student: RunDir,  # A finished run
    folders: Sequence[RunDir],  # Runs that may be its teacher
) -> RunDir | None:
    """Return the teacher that a student learned from, wherever it is; None without one on its images.

    A run without a teacher of its own, such as the baseline, is beside the teacher of its seed.
    """
    hashes = [entry['sha256'] for entry in upstream_entries(student) if entry['recipe'] == 'teacher']
    if hashes:
        candidates = [f for f in [*teachers_of(student), *folders] if f.files.get('weights.safetensors') in hashes]
    elif student.result['teacher_sha256']:
        return None  # a run of an earlier version, whose teacher is not known
    else:
        name = resolve_run_name(folders, 'teacher')
        candidates = [folder for folder in folders if (folder.recipe, folder.seed) == (name, student.seed)]
    needed = 'confusion.csv', 'predictions.npz'
    usable = [f for f in candidates if on_same_images(student, f) and all(f.has(name) for name in needed)]
    return next(iter(usable), None)


def confident_errors(
    folders: Sequence[RunDir],  # Finished runs that classify
) -> dict[str, list[dict]]:  # By recipe: image as data URI, actual and predicted class
    "Return the images that the first seed of each recipe classifies wrongly with the highest confidence."
    n = max(MIN_IMAGES, MAX_IMAGES // max(len({folder.recipe for folder in folders}), 1))
    shown = {}
    for folder in folders:
        if folder.recipe in shown or not folder.has('confused.npz'):
            continue
        classes, _ = folder.confusion()
        errors = folder.arrays('confused.npz')
        shown[folder.recipe] = [
            dict(src=data_uri(image), actual=classes[actual], predicted=classes[predicted])
            for image, actual, predicted in zip(errors['images'][:n], errors['actual'], errors['predicted'])
        ]
    return shown


def data_uri(
    image: np.ndarray,  # (height, width, channels), bytes
):
    "Return an image as a data URI for the page: JPEG, or PNG if that is smaller, as of few pixels."
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    encoded = []
    for kind in ('png', 'jpeg'):
        content = io.BytesIO()
        picture.save(content, kind, **(dict(quality=85) if kind == 'jpeg' else {}))
        encoded.append(f'data:image/{kind};base64,' + base64.b64encode(content.getvalue()).decode())
    return min(encoded, key=len)
