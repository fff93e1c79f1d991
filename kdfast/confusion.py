"Which classes a run takes for which, and where one run is ahead of another: facts, then tables. Imports no torch."
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdfast.errors import KdfastError
from kdfast.report import percent
from kdfast.runs import Folder

CHANCE = .05 # a smaller p-value, corrected for the number of classes, is called more than chance
MOST = 10    # pairs that are listed


def facts(
    folder:Folder, # A finished run
    against:Folder|None=None, # Another one on the same data, such as the teacher's
) -> dict:
    """Who takes what for what: the matrix in counts and in shares of its rows, accuracy by class, the most confused pairs.

    Beside another run: its own, and for every class McNemar's exact p-value that both are equally often right,
    corrected for the number of classes (Holm); how often the two agree; how many images only one has right.
    Raises KdfastError for a run that classifies nothing, and for one on other images.
    """
    classes,matrix = folder.confusion()
    pairs = most_confused(matrix)
    found = dict(run=str(folder), classes=classes, confusion=matrix, shares=[shares(row) for row in matrix],
                 class_accuracy=dict(zip(classes, accuracies(matrix))), worst_pairs=[[classes[i], classes[j], matrix[i][j]] for i,j in pairs],
                 most_alike=most_alike(classes, matrix))
    if against is None: return found
    other_classes,other = against.confusion()
    if other_classes != classes:
        raise KdfastError(f'{folder} knows the classes {", ".join(classes)}; {against} knows {", ".join(other_classes)}: only runs on the same data compare')
    return found | dict(against=str(against), against_confusion=other, against_class_accuracy=dict(zip(classes, accuracies(other))),
                        against_worst_pairs=[[classes[i], classes[j], other[i][j]] for i,j in pairs], **image_by_image(folder, against, classes))


def shares(row): return [n/sum(row) if sum(row) else 0. for n in row]


def accuracies(matrix):
    "Of each class: the diagonal over the row sums"
    return [shares(row)[i] for i,row in enumerate(matrix)]


def most_confused(matrix):
    "(actual, predicted) of the largest counts off the diagonal"
    off = [(i, j) for i,row in enumerate(matrix) for j,n in enumerate(row) if i != j and n]
    return sorted(off, key=lambda pair: -matrix[pair[0]][pair[1]])[:MOST]


def most_alike(classes, matrix):
    "The two classes that are taken for each other most, both ways together; None where nothing is confused"
    n,i,j = max((matrix[i][j] + matrix[j][i], i, j) for i in range(len(classes)) for j in range(i))
    return [classes[j], classes[i], n] if n else None


def image_by_image(folder, against, classes):
    "What only the predictions of both runs can tell"
    from kdfast.stats import discordant, holm, mcnemar
    mine,theirs = (run.arrays('predictions.npz') for run in (folder, against))
    if len(mine['actual']) != len(theirs['actual']) or (mine['actual'] != theirs['actual']).any():
        raise KdfastError(f'{folder} and {against} were validated on different images: only runs on the same data compare')
    right,other_right = ((p['predicted'] == p['actual']) for p in (mine, theirs))
    of_class = [mine['actual'] == label for label in range(len(classes))]
    p_values = holm([mcnemar(right[rows].tolist(), other_right[rows].tolist()) for rows in of_class])
    only,only_other = discordant(right.tolist(), other_right.tolist())
    return dict(class_p=dict(zip(classes, p_values)), agreement=float((mine['predicted'] == theirs['predicted']).mean()),
                only_right=only, only_against_right=only_other, images=len(right))


# In words

def view(
    found:dict, # From `facts`
    names:tuple[str,str|None], # What to call the run and the other
    width:int, # Columns of the terminal
    as_shares:bool=False, # Shares of the rows in place of counts
) -> Group:
    "The matrix as a heat map, then accuracy by class and the most confused pairs."
    parts = [Text.assemble('\n', (names[0], 'bold'), ': rows are what an image shows, columns what it was taken for\n'), heat_map(found, width, as_shares), Text(),
             class_table(found, names), Text(), pair_table(found, names), Text()]
    if found['most_alike']: parts.append(Text('Confused most, both ways together: {} and {}, {} images.'.format(*found['most_alike'])))
    return Group(*parts, *(Text(sentence) for sentence in (sentences(found, names) if names[1] else [])))


def sentences(found, names):
    "Where the run is ahead, and how far the two agree"
    def classes(better): return ', '.join(c for c in found['classes'] if better(c)) or 'no class'
    def ahead(c): return found['class_accuracy'][c] > found['against_class_accuracy'][c]
    mine,other = names
    yield f'{mine} is ahead of {other} in {classes(ahead)}; by more than chance (p < {CHANCE}) in {classes(lambda c: ahead(c) and found["class_p"][c] < CHANCE)}.'
    yield (f'They agree on {percent(found["agreement"])} of {found["images"]:,} images; only {mine} has {found["only_right"]} right, '
           f'only {other} {found["only_against_right"]}.')


def heat_map(found, width, as_shares=False):
    classes,matrix = found['classes'],found['confusion']
    written = [[f'{100*share:.1f}' for share in row] for row in found['shares']] if as_shares else [[str(n) for n in row] for row in matrix]
    label,cell_width = max(map(len, classes)),max(4, *(len(cell) for row in written for cell in row))
    if label + (cell_width + 1)*len(classes) > width:
        return Text(f'(the matrix of {len(classes)} classes is wider than {width} columns; it is in confusion.csv)', style='dim')
    lines = [Text(' '*label + ''.join(f' {c[:cell_width]:>{cell_width}}' for c in classes), style='bold')]
    for name,cells,row in zip(classes, written, found['shares']):
        line = Text(f'{name:<{label}}')
        for column,cell,share in zip(classes, cells, row):
            line.append(' ')
            line.append(f'{cell if share else "·":>{cell_width}}', style=heat(share, right=column == name))
        lines.append(line)
    return Group(*lines)


def heat(share, right):
    "Green for the diagonal, redder for each further fiftieth of a class that is taken for another"
    if right: return 'bold green'
    return 'dim' if share < .01 else 'yellow' if share < .03 else 'red' if share < .08 else 'bold red reverse'


def class_table(found, names):
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('accuracy by class')
    for name in (*filter(None, names), *(['points', 'p'] if names[1] else [])): table.add_column(name, justify='right')
    for c in found['classes']:
        mine = found['class_accuracy'][c]
        table.add_row(Text(c), percent(mine), *(beside(mine, found['against_class_accuracy'][c], found['class_p'][c]) if names[1] else []))
    if names[1]: table.caption,table.caption_justify = 'p: McNemar\'s exact test, corrected for the number of classes (Holm)','left'
    return table


def beside(mine, theirs, p):
    style = 'green' if mine > theirs else 'red' if mine < theirs else ''
    return percent(theirs),Text(f'{100*(mine - theirs):+.1f}'.replace('-', '−'), style=style),Text(f'{p:.3f}' if p >= .001 else '<.001', style='bold' if p < CHANCE else 'dim')


def pair_table(found, names):
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('most confused')
    for name in filter(None, names): table.add_column(name, justify='right')
    others = [str(n) for *_,n in found['against_worst_pairs']] if names[1] else None
    for row,(a,b,n) in enumerate(found['worst_pairs']): table.add_row(Text(f'{a} taken for {b}'), str(n), *([others[row]] if others else []))
    return table
