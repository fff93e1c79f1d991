import re
from xml.etree import ElementTree

import pytest
from kdfast.charts import HEIGHT, WIDTH, interval_plot, line_chart, thin_out, ticks


@pytest.mark.parametrize('low,high', [(0, 1), (.71, .74), (0, 12000), (-3, 4), (.5, .5), (1e-4, 2e-4)])
def test_ticks_are_few_and_lie_between(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 7 and all(t >= low - 1e-9 for t in found) and (low == high or all(t <= high + 1e-9 for t in found))


def test_a_line_lies_where_its_numbers_are():
    drawn = ElementTree.fromstring(line_chart({'<kd>': [(1, 0., 0., 0.), (2, 5., 4., 6.), (3, 10., 10., 10.)]}, {'<kd>': 2}, 'loss', 'epoch'))
    line,band = drawn.find('polyline'),drawn.find('polygon')
    points = [tuple(map(float, p.split(','))) for p in line.get('points').split()]
    assert line.find('title').text == '<kd>' and line.get('class') == 'line c2' and len(band.get('points').split()) == 6
    assert points[1] == pytest.approx(((points[0][0] + points[2][0])/2, (points[0][1] + points[2][1])/2)) and points[0][1] > points[2][1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x,y in points)


def test_nothing_to_draw(): assert line_chart({'kd': [], 'exp1': [(1, float('nan'), 0, 0)]}, dict(kd=0, exp1=1), 'fit', 'epoch') == ''


def test_long_lines_keep_their_mean():
    points = [(float(k), float(k), 0., 0.) for k in range(1000)]
    thin = thin_out(points)
    assert len(thin) == 200 and sum(p[1] for p in thin)/200 == pytest.approx(499.5) and thin_out(points[:7]) == points[:7]


def test_intervals_lie_against_the_margin():
    assert 'class="margin"' in interval_plot([], .8) # where no seeds are in common yet
    long = 'kd,epochs=22,optimizer=muon,teacher=runs_cifar10-images_teacher_epochs=14_optimizer=muon_0'
    broken = re.findall(r'<text x="4" y="([^"]+)">([^<]*)</text>', interval_plot([(long, 0., -1., 1., 'undecided'), ('c', 2., 1.5, 2.5, 'better')], .8))
    assert ''.join(text for _,text in sorted(broken, key=lambda at: float(at[0]))) == f'{long}: undecidedc: better' and max(len(text) for _,text in broken) <= 54
    assert len({y for y,_ in broken}) == len(broken) == 3 and all(float(y) > 0 for y,_ in broken)
    drawn = interval_plot([('a & b', .5, .2, .8, 'alike'), ('c', 2., 1.5, 2.5, 'better')], .8)
    root = ElementTree.fromstring(drawn)
    shaded = root.find('rect')
    left,right = float(shaded.get('x')),float(shaded.get('x')) + float(shaded.get('width'))
    alike,better = [line for line in root.findall('line') if line.get('class').startswith('interval')]
    assert left < float(alike.get('x1')) and float(alike.get('x2')) == pytest.approx(right, abs=.11) and float(better.get('x1')) > right
    assert re.search('a &amp; b: alike', drawn)


def test_one_wild_value_does_not_flatten_the_rest():
    from kdfast.charts import reach
    assert reach([1.]*50 + [2.]*50) == (1., 2.) and reach([1.]*50 + [2.]*49 + [20000.]) == (1., 3.)
