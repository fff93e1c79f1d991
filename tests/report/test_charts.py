import random
import re
from xml.etree import ElementTree

import pytest

from kdfast.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, interval_plot, line_chart, thin_out, ticks


@pytest.mark.parametrize('low,high', [(0, 1), (0.71, 0.74), (0, 12000), (-3, 4), (0.5, 0.5), (1e-4, 2e-4)])
def test_ticks_are_few_and_lie_between(low, high):
    found = ticks(low, high)
    assert (
        2 <= len(found) <= 7
        and all(t >= low - 1e-9 for t in found)
        and (low == high or all(t <= high + 1e-9 for t in found))
    )


def test_a_line_lies_where_its_numbers_are():
    drawn = ElementTree.fromstring(
        line_chart(
            {'<kd>': [(1, 0.0, 0.0, 0.0), (2, 5.0, 4.0, 6.0), (3, 10.0, 10.0, 10.0)]}, {'<kd>': 2}, 'loss', 'epoch'
        )
    )
    line, band = drawn.find('polyline'), drawn.find('polygon')
    points = [tuple(map(float, p.split(','))) for p in line.get('points').split()]
    assert line.find('title').text == '<kd>' and line.get('class') == 'line c2' and len(band.get('points').split()) == 6
    assert (
        points[1] == pytest.approx(((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2))
        and points[0][1] > points[2][1]
    )
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_nothing_to_draw():
    assert line_chart({'kd': [], 'exp1': [(1, float('nan'), 0, 0)]}, dict(kd=0, exp1=1), 'fit', 'epoch') == ''


def test_long_lines_keep_their_mean():
    points = [(float(k), float(k), 0.0, 0.0) for k in range(1000)]
    thin = thin_out(points)
    assert (
        len(thin) == 200
        and sum(p[1] for p in thin) / 200 == pytest.approx(499.5)
        and thin_out(points[:7]) == points[:7]
    )


def test_intervals_lie_against_the_margin():
    assert 'class="margin"' in interval_plot([], 0.8)  # where no seeds are in common yet
    long = 'kd,epochs=22,optimizer=muon,teacher=runs_cifar10-images_teacher_epochs=14_optimizer=muon_0'
    broken = re.findall(
        r'<text x="4" y="([^"]+)">([^<]*)</text>',
        interval_plot([(long, 0.0, -1.0, 1.0, 'undecided'), ('c', 2.0, 1.5, 2.5, 'better')], 0.8),
    )
    assert (
        ''.join(text for _, text in sorted(broken, key=lambda at: float(at[0]))) == f'{long}: undecidedc: better'
        and max(len(text) for _, text in broken) <= 54
    )
    assert len({y for y, _ in broken}) == len(broken) == 3 and all(float(y) > 0 for y, _ in broken)
    drawn = interval_plot([('a & b', 0.5, 0.2, 0.8, 'alike'), ('c', 2.0, 1.5, 2.5, 'better')], 0.8)
    root = ElementTree.fromstring(drawn)
    shaded = root.find('rect')
    left, right = float(shaded.get('x')), float(shaded.get('x')) + float(shaded.get('width'))
    alike, better = [line for line in root.findall('line') if line.get('class').startswith('interval')]
    assert (
        left < float(alike.get('x1'))
        and float(alike.get('x2')) == pytest.approx(right, abs=0.11)
        and float(better.get('x1')) > right
    )
    assert re.search('a &amp; b: alike', drawn)


def test_one_wild_value_does_not_flatten_the_rest():
    from kdfast.report.charts import reach

    assert reach([1.0] * 50 + [2.0] * 50) == (1.0, 2.0) and reach([1.0] * 50 + [2.0] * 49 + [20000.0]) == (1.0, 3.0)
    assert reach([-2.0] * 50 + [-1.0] * 50) == (-2.0, -1.0) and reach([-2.0] * 50 + [-1.0] * 49 + [20000.0]) == (
        -2.0,
        0.0,
    )
    assert reach([1.0] * 99 + [5.0]) == (1.0, 5.0)


def places(text):
    return [tuple(map(float, place.split(','))) for place in text.split()]


def test_a_loss_below_0_is_drawn_as_one_above():
    "What was cut off: -0.2 to -0.5, whose highest was taken for -0.3"

    def line(values):
        return places(
            ElementTree.fromstring(
                line_chart({'vid': [(x, v, v, v) for x, v in enumerate(values, 1)]}, {'vid': 0}, 'fit loss', 'epoch')
            )
            .find('polyline')
            .get('points')
        )

    below, above = line([-0.2 - 0.015 * k for k in range(21)]), line([1.2 - 0.015 * k for k in range(21)])
    assert below == above and below[0][1] == TOP and below[-1][1] == HEIGHT - BOTTOM


KINDS = {  # of numbers that a loss may be
    'ordinary': lambda r: r.uniform(0, 5),
    'negative': lambda r: -r.uniform(0.2, 0.5),
    'mixed': lambda r: r.gauss(0, 3),
    'constant': lambda r: 2.5,
    'zero': lambda r: 0.0,
    'nearly constant': lambda r: 1 + r.randrange(4) * 2**-52,
    'tiny': lambda r: r.uniform(-1, 1) * 1e-310,
    'small': lambda r: 1e-12 * r.random(),
    'huge': lambda r: r.uniform(-1, 1) * 1e299,
    'all sizes': lambda r: r.choice((-1, 1)) * 10 ** r.uniform(-300, 299),
    'wild': lambda r: r.choice([1e9, 0.1, 0.2, 0.3, 0.4]),
    'infinite': lambda r: r.choice([float('inf'), float('-inf'), float('nan'), 1.0, 2.0]),
}


@pytest.mark.parametrize('kind', KINDS)
def test_whatever_the_numbers_are_they_are_drawn_inside_the_plot_and_in_their_order(kind):
    for seed in range(40):
        r = random.Random(seed)
        series = {}
        for name in 'ab':
            triples = [sorted(KINDS[kind](r) for _ in range(3)) for _ in range(r.choice([1, 2, 5, 50, 199]))]
            series[name] = [(x, mean, low, high) for x, (low, mean, high) in enumerate(triples, r.choice([1, 1, 3]))]
        chart = line_chart(series, dict(a=0, b=1), 'loss', 'epoch')
        drawable = {name: [p for p in points if all(abs(v) <= 1e300 for v in p)] for name, points in series.items()}
        if not any(drawable.values()):
            assert chart == ''
            continue
        root, expected = ElementTree.fromstring(chart), {name: points for name, points in drawable.items() if points}
        for shape, points in zip([*root.findall('polyline'), *root.findall('polygon')], [*expected.values()] * 2):
            drawn = places(shape.get('points'))
            assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in drawn), (kind, seed)
            if shape.tag == 'polyline':
                assert len(drawn) == len(points)
                by_value = sorted(zip((p[1] for p in points), (y for _, y in drawn)))
                assert all(ya >= yb for (_, ya), (_, yb) in zip(by_value, by_value[1:])), (
                    kind,
                    seed,
                )  # higher values are higher up
        assert [c.get('r') for c in root.findall('circle')] == ['2.5'] * sum(len(p) == 1 for p in expected.values())
        for line in root.findall('line'):
            assert TOP <= float(line.get('y1')) <= HEIGHT - BOTTOM
        for text in root.findall('text'):
            assert 0 <= float(text.get('x')) <= WIDTH and 0 <= float(text.get('y')) <= HEIGHT


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('margin', [0.0, 0.8, 1e6])
def test_intervals_of_whatever_numbers_are_drawn_inside_the_plot(kind, margin):
    for seed in range(20):
        r = random.Random(seed)
        rows = []
        for name in 'abc':
            low, mean, high = sorted(KINDS[kind](r) for _ in range(3))
            rows.append((name, mean, low, high, 'undecided'))
        root = ElementTree.fromstring(interval_plot(rows, margin))
        lines = [line for line in root.findall('line') if line.get('class').startswith('interval')]
        assert len(lines) == sum(all(abs(v) <= 1e300 for v in row[1:4]) for row in rows) == len(root.findall('circle'))
        for line, dot in zip(lines, root.findall('circle')):
            assert 0 <= float(line.get('x1')) <= float(dot.get('cx')) <= float(line.get('x2')) <= WIDTH
        shaded = root.find('rect')
        assert 0 <= float(shaded.get('x')) and float(shaded.get('x')) + float(shaded.get('width')) <= WIDTH + 0.1


def test_only_whole_epochs_have_a_number():
    chart = line_chart({'a': [(1, 0.5, 0.5, 0.5), (2, 0.6, 0.6, 0.6)]}, dict(a=0), 'accuracy', 'epoch')
    assert re.findall(r'text-anchor="middle">([^<]*)<', chart) == ['1', '2', 'epoch']
