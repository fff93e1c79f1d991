"Forest plots: intervals against the margin, confidences, any numbers, any names."

import random
import re

import pytest
from test_charts import KINDS

from kdfast.report.forest import forest_plot


def row(difference, low, high, verdict, **others):
    return (
        dict(
            difference=difference,
            low=low,
            high=high,
            verdict=verdict,
            of='seeds',
            seeds_to_settle=9,
            confidence=0.95,
            margin=0.008,
        )
        | others
    )


def positions(html):
    "Of shaded range, intervals and dots, in percent of the width"
    (shaded,) = {tuple(map(float, m)) for m in re.findall(r'class="margin" x="(.*?)%" width="(.*?)%"', html)}
    lines = [tuple(map(float, m)) for m in re.findall(r'class="interval \w+" x1="(.*?)%" x2="(.*?)%"', html)]
    return shaded, lines, [float(m) for m in re.findall(r'cx="(.*?)%"', html)]


def test_intervals_lie_against_the_margin():
    rows = [('a & <b>', row(0.005, 0.002, 0.008, 'alike')), ('c', row(0.02, 0.015, 0.025, 'better'))]
    html = forest_plot(rows, 'against <i>')
    (left, width), (alike, better), dots = positions(html)
    assert left < alike[0] and alike[1] == pytest.approx(left + width, abs=0.02) and better[0] > left + width
    assert alike[0] < dots[0] < alike[1] and better[0] < dots[1] < better[1]
    assert 'a &amp; &lt;b&gt;' in html and 'against &lt;i&gt;' in html and '95 % interval</th>' in html
    assert '<td>+2.00</td>\n<td>+1.50 … +2.50<small></small></td>' in html


def test_the_confidence_is_that_of_the_row():
    one = [('a', row(0.0, -0.1, 0.1, 'undecided', confidence=0.98333))]
    assert '98.33 % interval</th>' in forest_plot(one, 'x') and '95 %' not in forest_plot(one, 'x')
    two = [*one, ('b', row(0.0, -0.1, 0.1, 'undecided'))]
    html = forest_plot(two, 'x')
    assert '>interval</th>' in html and '+10.00<small>98.33 %</small>' in html and '+10.00<small>95 %</small>' in html


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('margin', [0.0, 0.008, 1e4])
def test_intervals_of_whatever_numbers_are_drawn_inside_the_plot(kind, margin):
    for seed in range(20):
        r = random.Random(seed)
        rows = []
        for name in 'abc':
            low, mean, high = sorted(KINDS[kind](r) / 100 for _ in range(3))
            rows.append((name, row(mean, low, high, 'undecided', margin=margin)))
        (left, width), lines, dots = positions(forest_plot(rows, 'x'))
        finite = [found for _, found in rows if all(abs(found[k]) < 1e300 for k in ('difference', 'low', 'high'))]
        assert len(lines) == len(dots) == len(finite) and 0 <= left <= left + width <= 100.1
        assert all(0 <= low <= dot <= high <= 100 for (low, high), dot in zip(lines, dots))
