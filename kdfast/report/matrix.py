"""The regressor question as tables and sentences."""

from collections.abc import Iterator

from rich.console import Group
from rich.text import Text

from kdfast.analysis.matrix import EXPERIMENTS
from kdfast.core.format import ranges
from kdfast.core.tables import Table
from kdfast.report.differences import (
    STYLES,
    confidences_of,
    difference_cells,
    interval_heading,
    interval_remarks,
    margin_remarks,
    next_step_remarks,
    settings_remarks,
)

KINDS = dict(raw='raw', corrected='corrected for baselines', control='control')  # of differences, with their labels
STATE_STYLES = dict(held='green', broken='bold red', undecided='yellow')  # of premises
ANSWERS = dict(
    better='yes, the student is better with it',
    worse='yes, the student is worse with it',
    alike='no, any effect is smaller than the margin',
    undecided='undecided',
)


def question_view(
    found: dict,  # From `answer_question`
) -> Group:
    "Return the question, the answer, its premises and the differences for a terminal."
    differences = [effect[kind] for effect in found['effects'] for kind in KINDS]
    return Group(
        Text(f'\n{found["question"]}\n', style='bold'),
        *answer_sentences(found),
        Text(),
        premise_table(found['premises']),
        Text(),
        effect_table(found['effects']),
        Text(),
        *(Text(remark, style='dim') for remark in question_remarks(differences, found['design'])),
    )


def question_remarks(
    rows,  # Differences, from `answer_question`
    design,  # Its entries, if one was declared
):
    "Return what the verdicts and intervals mean, and what to be careful about."
    looks = [row for row in rows if row['verdict'] and 'look' in row]
    declared = f'intervals of the declared looks have a confidence of {", ".join(confidences_of(looks))}'
    return [
        *interval_remarks(rows),
        *([declared] if looks else []),
        *margin_remarks((row['margin'], design['margin']) for row in looks),
        *next_step_remarks(rows, 'matrix'),
        *settings_remarks(rows),
    ]


def premise_table(
    premises,  # From `answer_question`
):
    "Return a table with one row per premise: its state and evidence."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    for name in ('premise', '', 'evidence'):
        table.add_column(name)
    for p in premises:
        table.add_row(p['premise'], Text(p['state'], style=STATE_STYLES[p['state']]), Text(p['evidence']))
    return table


def effect_table(
    effects,  # From `answer_question`
):
    "Return a table with one row per experiment and kind of difference."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('with regressor − without')
    rows = [effect[kind] for effect in effects for kind in KINDS]
    for name in ('points', interval_heading(rows), 'n'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('verdict')
    for effect in effects:
        for kind, label in KINDS.items():
            table.add_row(f'{effect["experiment"]}, {label}', *difference_cells(effect[kind]))
    return table


def answer_sentences(
    found: dict,  # From `answer_question`
) -> Iterator[Text]:
    """Yield a sentence per experiment, from the corrected difference, and how often these are wrong.

    The primary contrast comes first. A broken premise gives no answer.
    """

    def premises(state):
        return ', '.join(p['premise'] for p in found['premises'] if p['state'] == state)

    broken, undecided = premises('broken'), premises('undecided')
    for effect in sorted(found['effects'], key=lambda effect: effect['experiment'] != found['primary']):
        verdict = effect['corrected']['verdict'] or 'undecided'
        name = EXPERIMENTS[effect['experiment']].capitalize()
        if broken:
            reason = f', a premise is broken ({broken}). The corrected difference is {verdict}.'
            yield Text.assemble(f'{name}: ', ('no answer', 'bold red'), reason)
        else:
            yield Text.assemble(f'{name}: ', (ANSWERS[verdict], STYLES[verdict]), '.')
    yield Text(error_rate_sentence(found))
    if undecided:
        yield Text(f'Premises not decided yet: {undecided}.', style='yellow')


def error_rate_sentence(
    found: dict,  # From `answer_question`
) -> str:
    "Return which contrast is the primary one, and how often its verdict is wrong."
    primary = EXPERIMENTS[found['primary']]
    secondary = next(text for name, text in EXPERIMENTS.items() if name != found['primary'])
    if any(effect['corrected'].get('of') == 'images' for effect in found['effects']):
        return (
            f'The primary contrast is {primary}, {secondary} is secondary. With one seed, verdicts are about these '
            'weights: other seeds may answer otherwise.'
        )
    if not (declared := found['design']):
        return (
            f'The primary contrast is {primary}, {secondary} is secondary: each verdict is wrong in at most 5 % of '
            'studies, one of the two in more.'
        )
    return (
        f'Declared on {declared["declared"][:10]}, with looks at {ranges(declared["looks"])} seeds: over all of '
        f'them, at most 5 % of studies are wrong about {primary}, the primary contrast; likewise about {secondary}, by '
        'itself.'
    )
