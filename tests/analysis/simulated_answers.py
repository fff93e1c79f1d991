"Made-up studies of counted images with known true differences, and whether the sentences about them are wrong."

import re
from types import SimpleNamespace

from kdfast.analysis.contrasts import with_verdict
from kdfast.analysis.worth import UNDECIDED, answer_of
from kdfast.report.worth import sentences
from kdfast.stats.intervals import CONFIDENCE
from kdfast.stats.sequential import decide

NUMBER = r'[+−-]?\d+\.\d+'
CHANGE = re.compile(rf'(r\d) changes it by ({NUMBER}) to ({NUMBER}) points')
GAIN = re.compile(rf'Yes: (r\d) raises .* by ({NUMBER}) to ({NUMBER}) points')
ROUNDING = 0.005  # points: sentences have two digits


def counts(random, true, seeds, images, discordance):
    "(recipes, seeds): differences of accuracies; every recipe shares the errors of the baseline of its seed"
    shared = random.binomial(images, discordance / 4, seeds)
    rows = [
        random.binomial(images, discordance / 4 + max(t, 0.0), seeds)
        + shared
        - random.binomial(images, discordance / 2 + max(-t, 0.0), seeds)
        for t in true
    ]
    return [row / images for row in rows]


def said(random, design, true, images, discordance, margin):
    "Return the two sentences about one study that stops at the first look with an answer"
    values = counts(random, true, design.last, images, discordance)
    for look in design.looks:
        rows = [with_verdict(decide(design, value[:look], 1 / images, margin), margin) for value in values]
        if answer_of(rows) != UNDECIDED:
            break
    for at, row in enumerate(rows):
        row |= dict(name=f'r{at}', seconds=dict(kd=2.0), n=look)
    best = dict(name='r0', seed=0, value=0.5, command='kdfast run kd')
    needed = dict(images=1000, margin=margin)
    found = dict(answer=answer_of(rows), subject='thin on pets', margin=margin, metric='accuracy', looks=design.looks)
    return sentences(found | dict(n=look, recipes=rows, baseline=1.0, best=best, next=None, needed=needed))


def is_wrong(text, true, margin):
    "Return whether a sentence claims what is not true of these differences, judged by its words alone"
    claims = [(name, *(float(n.replace('−', '-')) for n in ends)) for name, *ends in CHANGE.findall(text)]
    if text.startswith('Yes'):
        claims = [(name, float(low), float(high)) for name, low, high in GAIN.findall(text)]
        if true[int(claims[0][0][1:])] <= margin:
            return True
    elif text.startswith('No:') and max(true) >= margin:
        return True
    assert len(claims) == (1 if text.startswith('Yes') else len(true)), text
    return any(not low - ROUNDING <= 100 * true[int(name[1:])] <= high + ROUNDING for name, low, high in claims)


def share_wrong(random, studies, design, true, images, discordance=0.06, margin=0.008):
    "Return the share of studies whose first sentence is wrong"
    wrong = [is_wrong(said(random, design, true, images, discordance, margin)[0], true, margin) for _ in range(studies)]
    return sum(wrong) / studies


def naive(design):
    "Return the same looks with fixed-n intervals at each: the negative control"
    return SimpleNamespace(
        looks=design.looks, last=design.last, reached=design.reached, confidence=lambda look: CONFIDENCE
    )
