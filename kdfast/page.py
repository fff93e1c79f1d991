"The report as one HTML file: read from run folders, self-contained, nothing fetched."
import base64
import io
import json
from collections import defaultdict
from statistics import mean

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

import kdfast
from kdfast import analysis, confusion, differences, matrix, report
from kdfast.charts import interval_plot, line_chart
from kdfast.errors import KdfastError
from kdfast.runs import Folder, as_run

COLOURS = 12 # of lines; the page's style has half as many hues, each whole and dashed
CURVES = { # columns of metrics.csv and steps.csv, and what the page calls them
    'accuracy': 'accuracy', 'total': 'loss that training minimises', 'hard': 'hard loss', 'soft': 'soft loss', 'fit': 'fit loss'}
SPLITS = dict(valid='validation', train='training')


def write_page(
    folders:list[Folder], # Runs on one data set
    kept_in, # Where runs are kept
    margin:float, # Smallest difference that matters, as a fraction
) -> str: # HTML
    "The whole page: the question and its answer, the table, curves, confusion, analyses, and where it all comes from."
    finished = [folder for folder in folders if folder.finished]
    classified = [folder for folder in finished if folder.result['valid_accuracy'] is not None]
    rows,colours = report.aggregate(folders),{}
    for row in rows: colours[row['recipe']] = len(colours) % COLOURS
    environment = Environment(loader=PackageLoader('kdfast', '.'), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= dict(percent=report.percent, head=report.head, points=differences.points, interval=differences.interval)
    return environment.get_template('page.html').render(
        data=folders[0].data, version=kdfast.__version__, margin=margin, colours=colours,
        question=matrix.QUESTION, answer=answer(folders, kept_in, margin), table=table(rows), rows=rows, remarks=report.remarks(folders),
        against=against(folders, margin), curves=curves(finished, colours), confusions=confusions(classified), classes=class_bars(classified),
        gallery=gallery(classified), analysis=analysis.facts(folders), traits=analysis.TRAITS, provenance=[provenance(folder) for folder in folders])


def answer(folders, kept_in, margin):
    "The matrix question's facts, its plot and its sentences; None where it has not been asked"
    asked = [f for f in folders if f.finished and f.run['recipe'] in matrix.EXPERIMENTS and f.result['arguments'].get('student') == 'matched']
    if not asked: return None
    more = dict(epochs=asked[0].result['arguments']['epochs'])
    try: found = matrix.facts(kept_in, folders[0].data, sorted({f.seed for f in asked}), more, margin)
    except KdfastError: return None # one student's runs are missing: the page says that the question is open
    plotted = [(f'{e["experiment"]}, {kind}', *(100*e[kind][name] for name in ('difference', 'low', 'high')), e[kind]['verdict'])
               for e in found['effects'] for kind in ('raw', 'corrected', 'control') if e[kind]['verdict']]
    return found | dict(sentences=[text.plain for text in matrix.answers(found)], plot=Markup(interval_plot(plotted, 100*margin)))


def table(rows):
    "The report's table as text: a line a number, a column a recipe"
    return [(label, [report.cell(row[name], written) for row in rows]) for name,(label,written) in report.ROWS.items()]


def against(folders, margin):
    "Paired differences from the baseline, where there is one"
    baseline = as_run(folders, 'baseline')
    if baseline is None: return None
    rows = [row for row in differences.against(folders, baseline, margin) if row['verdict']]
    plotted = [(row['recipe'], *(100*row[name] for name in ('difference', 'low', 'high')), row['verdict']) for row in rows]
    return dict(rows=rows, plot=Markup(interval_plot(plotted, 100*margin)), remarks=differences.remarks(rows)) if rows else None


# Curves

def curves(folders, colours):
    "A chart a measure, by epoch and by step: the mean over seeds, and the band that they span"
    epochs,steps = defaultdict(lambda: defaultdict(list)),defaultdict(lambda: defaultdict(list))
    for folder in folders:
        by_epoch,by_step = folder.metrics(),folder.metrics('steps.csv')
        for measure in CURVES:
            for split in SPLITS: epochs[measure, split][folder.recipe].append(numbers(by_epoch, f'{split}_{measure}'))
            steps[measure, 'train'][folder.recipe].append(numbers(by_step, measure))
    charts = []
    for by,found in (('epoch', epochs), ('step', steps)):
        for (measure,split),series in found.items():
            chart = line_chart({name: spread(runs) for name,runs in series.items()}, colours, f'{CURVES[measure]}, {SPLITS[split]}', by)
            if chart: charts.append(dict(title=f'{CURVES[measure]}, {SPLITS[split]} images, by {by}', svg=Markup(chart)))
    return charts


def numbers(rows, column): return [float(row[column]) if row.get(column) else None for row in rows]


def spread(runs):
    "(x, mean, lowest, highest) over the seeds that have each x"
    found = [(x, [v for v in values if v is not None]) for x,values in enumerate(zip(*runs), 1)]
    return [(x, mean(values), min(values), max(values)) for x,values in found if values]


# Classes

def confusions(folders):
    "A matrix a recipe, summed over its seeds"
    by_recipe = defaultdict(list)
    for folder in folders: by_recipe[folder.recipe].append(folder.confusion())
    found = []
    for name,pairs in by_recipe.items():
        classes,matrices = pairs[0][0],[matrix for _,matrix in pairs]
        summed = [[sum(cells) for cells in zip(*lines)] for lines in zip(*matrices)]
        found.append(dict(recipe=name, n=len(pairs), classes=classes, rows=[list(zip(row, confusion.shares(row))) for row in summed],
                          alike=confusion.most_alike(classes, summed)))
    return found


def class_bars(folders):
    "Each class's accuracy, student beside teacher, of the first seed that has both"
    teacher = as_run(folders, 'teacher')
    teachers = {folder.seed: folder for folder in folders if folder.recipe == teacher}
    student = next((f for name in ('exp2', 'kd', 'exp1', 'baseline') for f in folders if f.recipe == as_run(folders, name) and f.seed in teachers), None)
    if student is None: return None
    found = confusion.facts(student, teachers[student.seed])
    return found | dict(student=student.recipe, seed=student.seed, sentences=list(confusion.sentences(found, (student.recipe, teacher))))


def gallery(folders):
    "Images that the first seed of each recipe has wrong and is surest of"
    shown = {}
    for folder in folders:
        if folder.recipe in shown or not (folder/'confused.npz').exists(): continue
        classes,_ = folder.confusion()
        kept = folder.arrays('confused.npz')
        shown[folder.recipe] = [dict(src=data_uri(image), actual=classes[a], predicted=classes[p])
                                for image,a,p in zip(kept['images'], kept['actual'], kept['predicted'])]
    return shown


def data_uri(image):
    content = io.BytesIO()
    picture = Image.fromarray(image)
    picture.thumbnail((64, 64))
    picture.save(content, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(content.getvalue()).decode()


def provenance(folder):
    "What another person needs to do it again"
    facts = {name: value for name,value in folder.run.items() if name not in ('pid', 'host')}
    return dict(name=folder.recipe, seed=folder.seed, status=folder.status, reason=facts.get('reason', ''), facts=json.dumps(facts, indent=1, ensure_ascii=False))
