import json
import random
import re
from xml.etree import ElementTree

import pytest

from kdfast.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, points_per_line, thin_out, ticks
from kdfast.report.curves import chart_lines, chart_series


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
            {'<kd>': ([(1, 0.0), (2, 5.0), (3, 10.0)], [[(1, 0.0), (2, 4.0), (3, 10.0)]])}, {'<kd>': 2}, 'loss', 'epoch'
        )
    )
    seed, line = drawn.findall('polyline')
    points = [tuple(map(float, p.split(','))) for p in line.get('points').split()]
    assert line.find('title').text == '<kd>' and line.get('class') == 'line c2' and seed.get('class') == 'seed c2'
    assert places(seed.get('points'))[1][1] > points[1][1] + 10
    assert (
        points[1] == pytest.approx(((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2))
        and points[0][1] > points[2][1]
    )
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_nothing_to_draw():
    assert line_chart({}, {}, 'fit', 'epoch') == ''
    assert chart_series({'kd': [[]], 'exp1': [[float('nan'), None]]}) == {}


def test_long_lines_keep_their_mean():
    points = [(float(k), float(k), 0.0, 0.0) for k in range(1000)]
    thin = thin_out(points)
    assert (
        len(thin) == 200
        and sum(p[1] for p in thin) / 200 == pytest.approx(499.5)
        and thin_out(points[:7]) == points[:7]
    )


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
                line_chart({'vid': (list(enumerate(values, 1)), [])}, {'vid': 0}, 'fit loss', 'epoch')
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
        runs = {}
        for name in 'ab':
            n = r.choice([1, 2, 5, 50, 199])
            runs[name] = [[KINDS[kind](r) for _ in range(n)] for _ in range(r.choice([1, 3]))]
        series = chart_series(runs)
        chart = line_chart(series, dict(a=0, b=1), 'loss', 'epoch')
        if not series:
            assert chart == ''
            continue
        root = ElementTree.fromstring(chart)
        expected = [seed for _, seeds in series.values() for seed in seeds] + [line for line, _ in series.values()]
        shapes = root.findall('polyline')
        assert len(shapes) == len(expected)
        for shape, points in zip(shapes, expected):
            drawn = places(shape.get('points'))
            assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in drawn), (kind, seed)
            assert len(drawn) == len(points)
            by_value = sorted(zip((p[1] for p in points), (y for _, y in drawn)))
            assert all(ya >= yb for (_, ya), (_, yb) in zip(by_value, by_value[1:])), (kind, seed)  # higher are higher
        single = sum(len(line) == 1 for line, _ in series.values())
        assert [c.get('r') for c in root.findall('circle')] == ['2.5'] * single
        lines = chart_lines(series, dict(a=0, b=1), 'epoch')  # of the interactive chart
        json.dumps(lines, allow_nan=False)
        assert [found['recipe'] for found in lines['recipes']] == list(series)
        for line in root.findall('line'):
            assert TOP <= float(line.get('y1')) <= HEIGHT - BOTTOM
        for text in root.findall('text'):
            assert 0 <= float(text.get('x')) <= WIDTH and 0 <= float(text.get('y')) <= HEIGHT


def test_a_chart_of_many_lines_has_few_points_of_each():
    assert points_per_line(2) == 200 and points_per_line(12) == 100 and points_per_line(400) == 8
    series = chart_series({name: [[1.0 * k for k in range(500)]] * 20 for name in 'abcd'})
    assert all(len(line) <= 200 and len(seeds) == 20 and len(seeds[0]) <= 15 for line, seeds in series.values())


def test_the_mean_ends_with_the_first_seed():
    assert chart_series({'a': [[1.0, 2.0, 4.0], [3.0, None]]})['a'] == (
        [(1, 2.0), (2, 2.0)],
        [[(1, 1.0), (2, 2.0), (3, 4.0)], [(1, 3.0)]],
    )


def test_only_whole_epochs_have_a_number():
    chart = line_chart({'a': ([(1, 0.5), (2, 0.6)], [])}, dict(a=0), 'accuracy', 'epoch')
    assert re.findall(r'text-anchor="middle">([^<]*)<', chart) == ['1', '2', 'epoch']
