"""The regressor question as tables and sentences."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdfast.analysis.matrix import EXPERIMENTS
from kdfast.report.differences import STYLES, difference_remarks, difference_row

ANSWERS = dict(
    better='yes: the student is better with it',
    worse='yes: the student is worse with it',
    alike='no: any effect is smaller than the margin',
    undecided='undecided',
)


# In words


def question_view(
    found: dict,  # From `facts`
) -> Group:
    "The question, its premises, the contrasts, and the answer."
    return Group(
        Text(f'\n{found["question"]}\n', style='bold'),
        premise_table(found['premises']),
        Text(),
        effect_table(found['effects']),
        Text(),
        *(
            Text(note, style='dim')
            for note in difference_remarks(
                [e[kind] for e in found['effects'] for kind in ('raw', 'corrected', 'control')]
            )
        ),
        Text(),
        *answer_sentences(found),
    )


def premise_table(premises):
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    for name in ('premise', '', 'evidence'):
        table.add_column(name)
    styles = dict(held='green', broken='bold red', undecided='yellow')
    for p in premises:
        table.add_row(p['premise'], Text(p['state'], style=styles[p['state']]), p['evidence'])
    return table


def effect_table(effects):
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('with the matrix − without')
    for name in ('points', '95 % interval', 'n'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('verdict')
    for effect in effects:
        for kind, says in (
            ('raw', 'raw'),
            ('corrected', 'beyond the baselines'),
            ('control', 'matrix alone (control)'),
        ):
            table.add_row(f'{effect["experiment"]}, {says}', *difference_row(effect[kind]))
    return table


def answer_sentences(found):
    "A sentence an experiment, by what lies beyond the baselines; the report's premises must hold before it counts"

    def premises(state):
        return ', '.join(p['premise'] for p in found['premises'] if p['state'] == state)

    broken, undecided = premises('broken'), premises('undecided')
    for effect in found['effects']:
        verdict = effect['corrected']['verdict'] or 'undecided'
        name = EXPERIMENTS[effect['experiment']].capitalize()
        if broken:
            yield Text.assemble(
                f'{name}: ',
                ('no answer', 'bold red'),
                f', for a premise is broken ({broken}); what lies beyond the baselines is {verdict}.',
            )
        else:
            yield Text.assemble(f'{name}: ', (ANSWERS[verdict], STYLES[verdict]), '.')
    if undecided:
        yield Text(f'Not yet shown to hold: {undecided}.', style='yellow')
