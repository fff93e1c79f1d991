"Line charts and interval plots as inline SVG: coloured by the page's own style, so that they follow dark mode and paper."

from html import escape
from itertools import accumulate
from math import ceil, floor, isfinite, log10

from kdfast.core.format import wrap_name

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 34
MOST_POINTS = 200  # of a line: more than its pixels show
LARGEST = 1e300  # values beyond it are drawn no more than infinite ones: differences of them would overflow


def ticks(low, high, n=5):
    "About n round numbers from low to high; from low to above it, where both are one"
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / n
    power = 10.0 ** floor(log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    return [float(f'{step * k:.12g}') for k in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def widened(low, high):
    "An axis needs two ends: some room around a constant, and around what differs in its last digits alone"
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-200):
        return low, high
    room = max(abs(low), abs(high)) / 2 or 0.5
    return low - room, high + room


def scale(low, high, start, end):
    "From low … high to start … end; what lies outside is drawn on the edge"
    return lambda v: start + min(1, max(0, (v - low) / (high - low))) * (end - start)


def drawable(numbers):
    return all(isfinite(v) and abs(v) <= LARGEST for v in numbers)


def thin_out(points):
    "At most 200 points, each the mean of its neighbours"
    size = ceil(len(points) / MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [tuple(sum(values) / len(group) for values in zip(*group)) for group in groups]


def line_chart(
    series: dict[str, list],  # By name: (x, mean, lowest, highest) in order of x
    colours: dict[str, int],  # By name: the number of its colour in the page's style
    title: str,  # What y is
    xlabel: str,  # What x is
) -> str:  # SVG
    "Lines with bands from the lowest to the highest of their seeds."
    series = {name: thin_out([p for p in points if drawable(p)]) for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ''
    xs = [p[0] for points in series.values() for p in points]
    first, last = widened(min(xs), max(xs))
    low, high = widened(*reach([y for points in series.values() for p in points for y in p[1:]]))
    x, y = scale(first, last, LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    whole = [v for v in ticks(first, last) if float(v).is_integer()]  # epochs and steps
    parts = [axes(x, y, whole, ticks(low, high), xlabel)]
    for name, points in series.items():
        edge = [(p[0], p[2]) for p in points] + [(p[0], p[3]) for p in reversed(points)]
        parts.append(f'<polygon class="band c{colours[name]}" points="{path(edge, x, y)}"/>')
        if len(points) == 1:
            parts.append(
                f'<circle class="line c{colours[name]}" cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="2.5"/>'
            )
        parts.append(
            f'<polyline class="line c{colours[name]}" points="{path([p[:2] for p in points], x, y)}"><title>{escape(name)}</title></polyline>'
        )
    return svg(title, HEIGHT, parts)


def reach(ys):
    """Lowest and highest of the axis: all values, but for a few far above the others, such as an untrained network's loss.

    Far: further above 95 % of the values than those span. Where they are all one, nothing is.
    """
    ys = sorted(ys)
    most = ys[int(0.95 * (len(ys) - 1))]
    return ys[0], min(ys[-1], 2 * most - ys[0]) if most > ys[0] else ys[-1]


def path(points, x, y):
    return ' '.join(f'{x(a):.1f},{y(b):.1f}' for a, b in points)


def axes(x, y, xticks, yticks, xlabel):
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 5}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in yticks
    ]
    lines += [f'<text x="{x(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{v:g}</text>' for v in xticks]
    return (
        ''.join(lines) + f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{escape(xlabel)}</text>'
    )


def svg(title, height, parts):
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'


def interval_plot(
    rows: list[tuple],  # (name, mean, low, high, verdict), in percentage points
    margin: float,  # In percentage points: the shaded range of what does not matter
) -> str:  # SVG
    "A line a difference, with its 95 % interval, against ±margin; of what is no number, the name alone."
    step, line, letters, edge = 36, 13, 54, 30
    labels = [wrap_name(f'{name}: {verdict}', letters).plain.split('\n') for name, *_, verdict in rows]
    ends = list(accumulate((step + line * (len(label) - 1) for label in labels), initial=0))
    reach = max([margin * 1.5, 1e-3] + [abs(v) for _, *numbers, _ in rows for v in numbers if drawable(numbers)])
    x, height = scale(-reach, reach, edge, WIDTH - edge), ends[-1] + 24
    parts = [
        f'<rect class="margin" x="{x(-margin):.1f}" width="{x(margin) - x(-margin):.1f}" y="0" height="{height - 22}"/>',
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height - 22}"/>',
    ]
    parts += [
        f'<text x="{x(v):.1f}" y="{height - 6}" text-anchor="middle">{v:+g}</text>' for v in ticks(-reach, reach, 4)
    ]
    for (_, mean, low, high, verdict), label, end in zip(rows, labels, ends[1:]):
        y = end - 10
        parts += [
            f'<text x="4" y="{y - 11 - line * above}">{escape(text)}</text>'
            for above, text in enumerate(reversed(label))
        ]
        if not drawable((mean, low, high)):
            continue
        parts.append(
            f'<line class="interval {verdict}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="{verdict}" cx="{x(mean):.1f}" cy="{y}" r="4"/>'
        )
    return svg('differences with their intervals', height, parts)
