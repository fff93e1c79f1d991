"""Line charts and interval plots as inline SVG. CSS of the page sets their colors, also for dark mode and print."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import accumulate
from math import ceil, floor, isfinite, log10

from kdfast.core.format import wrap_name

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 34  # space around the plot area, for axis labels
MAX_POINTS = 200  # of a line: more than its pixels show
MAX_VALUE = 1e300  # larger values are not drawn, like infinite ones: their differences could overflow

# Rows of an interval plot
ROW_HEIGHT = 36
LINE_HEIGHT = 13
LABEL_LENGTH = 54  # characters
EDGE = 30


def line_chart(
    series: Mapping[str, Sequence],  # By name: (x, mean, lowest, highest) in order of x
    colors: Mapping[str, int],  # By name: the number of its color in the style of the page
    title: str,  # What y is
    xlabel: str,  # What x is
) -> str:  # SVG; empty if there is nothing to draw
    "Draw lines with bands from the lowest to the highest seed."
    drawn = {name: thin_out([p for p in points if drawable(p)]) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return ''
    xs = [p[0] for points in drawn.values() for p in points]
    first, last = widened(min(xs), max(xs))
    low, high = widened(*reach([y for points in drawn.values() for p in points for y in p[1:]]))
    x, y = scale(first, last, LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    whole_ticks = [v for v in ticks(first, last) if float(v).is_integer()]  # epochs and steps
    parts = [axes(x, y, whole_ticks, ticks(low, high), xlabel)]
    for name, points in drawn.items():
        parts += line_with_band(points, x, y, f'c{colors[name]}', name)
    return svg(title, HEIGHT, parts)


def line_with_band(
    points,  # (x, mean, lowest, highest) of each point
    x: Callable,  # Horizontal position of a value
    y: Callable,  # Vertical position of a value
    color: str,  # CSS class
    name: str,  # Of the line
):
    "Yield the SVG elements of one line: band, line, and a dot for a single point."
    edge = [(p[0], p[2]) for p in points] + [(p[0], p[3]) for p in reversed(points)]
    yield f'<polygon class="band {color}" points="{path(edge, x, y)}"/>'
    if len(points) == 1:
        at, mean, *_ = points[0]
        yield f'<circle class="line {color}" cx="{x(at):.1f}" cy="{y(mean):.1f}" r="2.5"/>'
    line = path([p[:2] for p in points], x, y)
    yield f'<polyline class="line {color}" points="{line}"><title>{escape(name)}</title></polyline>'


def interval_plot(
    rows: Sequence[tuple],  # (name, mean, low, high, verdict), in percentage points
    margin: float,  # In percentage points: the shaded range of differences that do not matter
) -> str:  # SVG
    "Draw one line per difference, with its 95 % interval; only the name if a number is not finite."
    labels = [wrap_name(f'{name}: {verdict}', LABEL_LENGTH).plain.split('\n') for name, *_, verdict in rows]
    ends = list(accumulate((ROW_HEIGHT + LINE_HEIGHT * (len(label) - 1) for label in labels), initial=0))
    numbers = [abs(v) for _, *values, _ in rows for v in values if drawable(values)]
    limit = max([margin * 1.5, 1e-3, *numbers])
    x = scale(-limit, limit, EDGE, WIDTH - EDGE)
    height = ends[-1] + 24
    shaded = f'x="{x(-margin):.1f}" width="{x(margin) - x(-margin):.1f}"'
    parts = [
        f'<rect class="margin" {shaded} y="0" height="{height - 22}"/>',
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height - 22}"/>',
    ]
    for v in ticks(-limit, limit, 4):
        parts.append(f'<text x="{x(v):.1f}" y="{height - 6}" text-anchor="middle">{v:+g}</text>')
    for (_, mean, low, high, verdict), label, end in zip(rows, labels, ends[1:]):
        y = end - 10
        for above, text in enumerate(reversed(label)):
            parts.append(f'<text x="4" y="{y - 11 - LINE_HEIGHT * above}">{escape(text)}</text>')
        if drawable((mean, low, high)):
            parts.append(
                f'<line class="interval {verdict}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>'
                f'<circle class="{verdict}" cx="{x(mean):.1f}" cy="{y}" r="4"/>'
            )
    return svg('differences with their intervals', height, parts)


# Axes


def ticks(
    low: float,  # Lowest value
    high: float,  # Highest value
    n: int = 5,  # About how many
) -> list[float]:
    "Return about n round numbers from low to high; from low to above it, if both are equal."
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / n
    power = 10.0 ** floor(log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    return [float(f'{step * k:.12g}') for k in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def widened(
    low: float,  # Lowest value
    high: float,  # Highest value
):
    "Return the ends of an axis, with room around values that are equal or differ in their last digits."
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-200):
        return low, high
    room = max(abs(low), abs(high)) / 2 or 0.5
    return low - room, high + room


def reach(
    ys: Sequence[float],  # All values that could be drawn
) -> tuple[float, float]:
    """Return the ends of the axis: all values but a few far above the others, as of an untrained network.

    Far: further above 95 % of the values than those span. If 95 % of the values are equal, none is far.
    """
    ys = sorted(ys)
    most = ys[int(0.95 * (len(ys) - 1))]
    return ys[0], min(ys[-1], 2 * most - ys[0]) if most > ys[0] else ys[-1]


def scale(
    low: float,  # Lowest value
    high: float,  # Highest value
    start: float,  # Where low is drawn
    end: float,  # Where high is drawn
) -> Callable[[float], float]:
    "Return the function that maps low … high to start … end, and what lies outside to the nearer end."

    def position(value):
        return start + min(1, max(0, (value - low) / (high - low))) * (end - start)

    return position


def axes(
    x: Callable,  # Horizontal position of a value
    y: Callable,  # Vertical position of a value
    xticks,  # Numbers on the x axis
    yticks,  # Numbers on the y axis
    xlabel: str,  # Label of the x axis
):
    "Draw grid lines, the numbers of both axes, and the label of the x axis."
    parts = []
    for v in yticks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
            f'<text x="{LEFT - 5}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        )
    for v in xticks:
        parts.append(f'<text x="{x(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{v:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{escape(xlabel)}</text>')
    return ''.join(parts)


# Points


def drawable(
    numbers,  # Any numbers
):
    "Return whether all numbers are finite and not too large."
    return all(isfinite(v) and abs(v) <= MAX_VALUE for v in numbers)


def thin_out(
    points: Sequence[tuple],  # (x, y, …)
) -> list[tuple]:
    "Return at most 200 points, each the mean of neighbors."
    size = ceil(len(points) / MAX_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [tuple(sum(values) / len(group) for values in zip(*group)) for group in groups]


def path(
    points,  # (x, y) of each
    x: Callable,  # Horizontal position of a value
    y: Callable,  # Vertical position of a value
):
    "Return the points of a line as text for SVG."
    return ' '.join(f'{x(a):.1f},{y(b):.1f}' for a, b in points)


def svg(
    title: str,  # For screen readers
    height: int,  # In units of the view box
    parts,  # Elements inside, as text
):
    "Return a complete SVG element."
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
