"""Line charts as inline SVG. CSS of the page sets their colors, also for dark mode and print."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 34  # space around the plot area, for axis labels
MAX_POINTS = 200  # of a line: more than its pixels show
MIN_POINTS = 8  # of a line, however many there are
CHART_POINTS = 1200  # of all means of a chart, and of all its seeds, about: the page must stay small
MAX_VALUE = 1e300  # larger values are not drawn, like infinite ones: their differences could overflow


def line_chart(
    series: Mapping[str, tuple],  # By name: points (x, y) of the mean, and of each seed, in order of x
    colors: Mapping[str, int],  # By name: the number of its color in the style of the page
    title: str,  # What y is
    xlabel: str,  # What x is
) -> str:  # SVG; empty if there is nothing to draw
    "Draw the mean of each name as a thick line, and its seeds as thin lines."
    every = [p for mean, seeds in series.values() for line in (mean, *seeds) for p in line]
    if not every:
        return ''
    xs = [p[0] for p in every]
    first, last = widened(min(xs), max(xs))
    low, high = widened(*reach([p[1] for p in every]))
    x, y = scale(first, last, LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    whole_ticks = [v for v in ticks(first, last) if float(v).is_integer()]  # epochs and steps
    parts = [axes(x, y, whole_ticks, ticks(low, high), xlabel)]
    for name, (_, seeds) in series.items():
        parts += [f'<polyline class="seed c{colors[name]}" points="{path(line, x, y, 0)}"/>' for line in seeds]
    for name, (mean, _) in series.items():
        parts += mean_line(mean, x, y, f'c{colors[name]}', name)
    return svg(title, HEIGHT, parts)


def mean_line(
    points,  # (x, y) of each point
    x: Callable,  # Horizontal position of a value
    y: Callable,  # Vertical position of a value
    color: str,  # CSS class
    name: str,  # Of the line
):
    "Yield the SVG elements of a thick line; also a dot for a single point."
    if len(points) == 1:
        yield f'<circle class="line {color}" cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="2.5"/>'
    yield f'<polyline class="line {color}" points="{path(points, x, y)}"><title>{escape(name)}</title></polyline>'


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
    n: int = MAX_POINTS,  # At most
) -> list[tuple]:
    "Return at most n points, each the mean of neighbors."
    size = ceil(len(points) / n) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [tuple(sum(values) / len(group) for values in zip(*group)) for group in groups]


def points_per_line(
    lines: int,  # Of one kind in a chart: means, or seeds
) -> int:
    "Return how many points each line may have."
    return max(MIN_POINTS, min(MAX_POINTS, CHART_POINTS // max(lines, 1)))


def path(
    points,  # (x, y) of each
    x: Callable,  # Horizontal position of a value
    y: Callable,  # Vertical position of a value
    digits: int = 1,  # Decimals of each position
):
    "Return the points of a line as text for SVG."
    return ' '.join(f'{x(a):.{digits}f},{y(b):.{digits}f}' for a, b in points)


def svg(
    title: str,  # For screen readers
    height: int,  # In units of the view box
    parts,  # Elements inside, as text
):
    "Return a complete SVG element."
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
