"The report as one HTML file: read from run folders, self-contained, nothing fetched."

import base64
import io
import json
from collections import defaultdict
from statistics import mean

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

import kdfast
from kdfast.analysis import traits
from kdfast.analysis.aggregate import aggregate
from kdfast.analysis.confusion import OF_CLASS, confusion_summary, part_of_matrix
from kdfast.analysis.differences import differences_from
from kdfast.analysis.matrix import QUESTION, questions_answered
from kdfast.analysis.measures import MEASURES
from kdfast.core.format import interval_text, percent, signed_points
from kdfast.report.charts import interval_plot, line_chart
from kdfast.report.confusion import CLASSES, confusion_sentences, listed_classes
from kdfast.report.differences import difference_remarks
from kdfast.report.matrix import answer_sentences
from kdfast.report.tables import run_label, run_remarks, table_cell
from kdfast.runs.find import resolve_run_name
from kdfast.runs.lookup import arguments_text
from kdfast.runs.run_dir import RunDir
from kdfast.stats.confusion import hardest, most_alike

COLOURS = 12  # of lines; the page's style has half as many hues, each whole and dashed


CURVES = {  # columns of metrics.csv and steps.csv, and what the page calls them
    'accuracy': 'accuracy',
    'total': 'loss that training minimises',
    'hard': 'hard loss',
    'soft': 'soft loss',
    'fit': 'fit loss',
}


SPLITS = dict(valid='validation', train='training')


def write_page(
    folders: list[RunDir],  # Runs on one data set
    kept_in,  # Where runs are kept
    margin: float,  # Smallest difference that matters, as a fraction
) -> str:  # HTML
    "The whole page: the question and its answer, the table, curves, confusion, analyses, and where it all comes from."
    finished = [folder for folder in folders if folder.finished]
    classified = [folder for folder in finished if folder.result['valid_accuracy'] is not None]
    rows, colours = aggregate(folders), {}
    for row in rows:
        colours[row['recipe']] = len(colours) % COLOURS
    environment = Environment(
        loader=PackageLoader('kdfast.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(percent=percent, head=run_label, points=signed_points, interval=interval_text)
    return environment.get_template('page.html').render(
        data=folders[0].data,
        version=kdfast.__version__,
        margin=margin,
        colours=colours,
        question=QUESTION,
        answers=answers(folders, kept_in, margin),
        table=table(rows),
        rows=rows,
        remarks=run_remarks(folders),
        against=against(folders, margin),
        curves=curves(finished, colours),
        confusions=confusions(classified),
        classes=class_bars(classified),
        gallery=gallery(classified),
        analysis=traits.facts(folders),
        traits=traits.TRAITS,
        provenance=[provenance(folder) for folder in folders],
    )


def answers(folders, kept_in, margin):
    "The facts of the matrix question, their plot and sentences, for each set of arguments that its runs have"
    return [answer(found, margin) for found in questions_answered(folders, kept_in, margin)]


def answer(found, margin):
    plotted = [
        (
            f'{e["experiment"]}, {kind}',
            *(100 * e[kind][name] for name in ('difference', 'low', 'high')),
            e[kind]['verdict'],
        )
        for e in found['effects']
        for kind in ('raw', 'corrected', 'control')
        if e[kind]['verdict']
    ]
    return found | dict(
        sentences=[text.plain for text in answer_sentences(found)],
        given=arguments_text(found['arguments']),
        plot=Markup(interval_plot(plotted, 100 * margin)),
    )


def table(rows):
    "The report's table as text: a line a number, a column a recipe"
    return [(label, [table_cell(row[name], written) for row in rows]) for name, (label, written) in MEASURES.items()]


def against(folders, margin):
    "Paired differences from the baseline; from each of several, where none has its default arguments"
    one = resolve_run_name(folders, 'baseline')
    several = dict.fromkeys(f.recipe for f in folders if f.finished and f.run.get('recipe') == 'baseline')
    baselines = [one] if one else several
    return [found for found in (against_one(folders, name, margin) for name in baselines) if found]


def against_one(folders, baseline, margin):
    rows = [row for row in differences_from(folders, baseline, margin) if row['verdict']]
    plotted = [
        (row['recipe'], *(100 * row[name] for name in ('difference', 'low', 'high')), row['verdict']) for row in rows
    ]
    if not rows:
        return None
    return dict(baseline=baseline, plot=Markup(interval_plot(plotted, 100 * margin)), remarks=difference_remarks(rows))


# Curves


def curves(folders, colours):
    "A chart a measure, by epoch and by step: the mean over seeds, and the band that they span"
    epochs, steps = defaultdict(lambda: defaultdict(list)), defaultdict(lambda: defaultdict(list))
    for folder in folders:
        by_epoch, by_step = folder.metrics(), folder.metrics('steps.csv')
        for measure in CURVES:
            for split in SPLITS:
                epochs[measure, split][folder.recipe].append(numbers(by_epoch, f'{split}_{measure}'))
            steps[measure, 'train'][folder.recipe].append(numbers(by_step, measure))
    charts = []
    for by, found in (('epoch', epochs), ('step', steps)):
        for (measure, split), series in found.items():
            chart = line_chart(
                {name: spread(runs) for name, runs in series.items()},
                colours,
                f'{CURVES[measure]}, {SPLITS[split]}',
                by,
            )
            if chart:
                charts.append(dict(title=f'{CURVES[measure]}, {SPLITS[split]} images, by {by}', svg=Markup(chart)))
    return charts


def numbers(rows, column):
    return [float(row[column]) if row.get(column) else None for row in rows]


def spread(runs):
    "(x, mean, lowest, highest) over the seeds that have each x"
    found = [(x, [v for v in values if v is not None]) for x, values in enumerate(zip(*runs), 1)]
    return [(x, mean(values), min(values), max(values)) for x, values in found if values]


# Classes


def confusions(folders):
    "A matrix a recipe, summed over its seeds; of many classes, those that are confused most"
    by_recipe = defaultdict(list)
    for folder in folders:
        by_recipe[folder.recipe].append(folder)
    found = []
    for name, of_recipe in by_recipe.items():
        classes, summed = of_recipe[0].confusion()[0], sum(np.array(folder.confusion()[1]) for folder in of_recipe)
        some = sorted(hardest(summed, CLASSES))
        counts, of_row = part_of_matrix(summed, some)
        rows = [list(zip(*row)) for row in zip(counts.tolist(), of_row.tolist())]
        found.append(
            dict(
                recipe=name,
                n=len(of_recipe),
                classes=[classes[c] for c in some],
                of=len(classes),
                rows=rows,
                alike=most_alike(classes, summed),
            )
        )
    return found


def class_bars(folders):
    "Each class's accuracy, student beside teacher, of the first seed that has both"
    teacher, *students = [resolve_run_name(folders, name) for name in ('teacher', 'exp2', 'kd', 'exp1', 'baseline')]
    teachers = {folder.seed: folder for folder in folders if folder.recipe == teacher}
    student = next((f for name in students for f in folders if f.recipe == name and f.seed in teachers), None)
    if student is None:
        return None
    found = confusion_summary(student, teachers[student.seed])
    classes, which = listed_classes(found)
    shown = [(c, *(found[of][c] for of in OF_CLASS)) for c in classes]
    sentences = list(confusion_sentences(found, (student.recipe, teacher)))
    return dict(classes=shown, which=which, student=student.recipe, seed=student.seed, sentences=sentences)


def gallery(folders):
    "Images that the first seed of each recipe has wrong and is surest of"
    shown = {}
    for folder in folders:
        if folder.recipe in shown or not (folder / 'confused.npz').exists():
            continue
        classes, _ = folder.confusion()
        kept = folder.arrays('confused.npz')
        shown[folder.recipe] = [
            dict(src=data_uri(image), actual=classes[a], predicted=classes[p])
            for image, a, p in zip(kept['images'], kept['actual'], kept['predicted'])
        ]
    return shown


def data_uri(image):
    content = io.BytesIO()
    picture = Image.fromarray(image)
    picture.thumbnail((64, 64))
    picture.save(content, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(content.getvalue()).decode()


def provenance(folder):
    "What another person needs to do it again"
    facts = {name: value for name, value in folder.run.items() if name not in ('pid', 'host')}
    return dict(
        name=folder.recipe,
        seed=folder.seed,
        status=folder.status,
        reason=facts.get('reason', ''),
        facts=json.dumps(facts, indent=1, ensure_ascii=False),
    )
