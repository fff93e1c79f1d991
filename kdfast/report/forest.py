"""Forest plots: one row per difference, with its interval drawn beside the numbers, as an HTML table."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from kdfast.core.format import confidence_text, interval_text, signed_points
from kdfast.report.charts import drawable, scale, ticks
from kdfast.report.differences import seeds_note

EDGE = 4  # percent of the width that stay free at both sides, for the numbers of the axis
ROW = """<tr><th scope="row">{name}</th><td class="plot">{plot}</td><td>{points}</td>
<td>{interval}<small>{confidence}</small></td><td class="verdict {verdict}">{verdict}{note}</td></tr>
"""
TABLE = """<table class="forest"><thead><tr><th scope="col">{heading}</th><th scope="col">plot</th>
<th scope="col">points</th><th scope="col">{interval}</th><th scope="col">verdict</th></tr></thead>
<tbody>
{rows}<tr class="axis"><td></td><td class="plot">{axis}</td><td></td><td></td><td></td></tr>
</tbody></table>"""


def forest_plot(
    rows: Sequence[tuple[str, dict]],  # Name and row of each difference, from `differences_from`, with a verdict
    heading: str,  # What is compared with what
) -> Markup:  # HTML
    "Return a table with a line per difference: name, interval as a drawing, numbers, verdict."
    limit = axis_limit([row for _, row in rows])
    x = scale(-limit, limit, EDGE, 100 - EDGE)
    one_confidence = len({row['confidence'] for _, row in rows}) == 1
    made = Markup().join(
        Markup(ROW).format(
            name=breakable(name),
            plot=interval_drawing(row, x),
            points=signed_points(row['difference']),
            interval=interval_text(row),
            confidence='' if one_confidence else confidence_text(row['confidence']),
            verdict=row['verdict'],
            note=seeds_note(row),
        )
        for name, row in rows
    )
    interval = f'{confidence_text(rows[0][1]["confidence"])} interval' if one_confidence else 'interval'
    return Markup(TABLE).format(heading=heading, interval=interval, rows=made, axis=axis_drawing(limit, x))


def breakable(
    name: str,  # Of a run
) -> Markup:  # HTML
    "Allow a line break behind each argument of a name."
    return Markup(escape(name).replace(',', Markup(',<wbr>')))


def axis_limit(
    rows,  # From `differences_from`
):
    "Return where the axis ends, in points; it is symmetric around 0."
    numbers = [abs(100 * v) for row in rows for v in ends(row) if drawable(ends(row))]
    return max([*(150 * row['margin'] for row in rows), 1e-3, *numbers])


def ends(
    row,  # From `differences_from`
):
    "Return difference and interval of a row, as fractions."
    return [row[name] for name in ('difference', 'low', 'high')]


def interval_drawing(
    row,  # From `differences_from`
    x,  # Horizontal position of a number of points, in percent of the width
):
    "Draw the margin as a shaded range, zero and the interval; no interval if a number is not finite."
    left, right = x(-100 * row['margin']), x(100 * row['margin'])
    parts = [
        f'<rect class="margin" x="{left:.2f}%" width="{right - left:.2f}%" y="0" height="100%"/>',
        '<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>',
    ]
    if drawable(ends(row)):
        mean, low, high = (f'{x(100 * v):.2f}%' for v in ends(row))
        parts.append(f'<line class="interval {row["verdict"]}" x1="{low}" x2="{high}" y1="50%" y2="50%"/>')
        parts.append(f'<circle class="{row["verdict"]}" cx="{mean}" cy="50%" r="5"/>')
    title = (
        f'{signed_points(row["difference"])} points, {confidence_text(row["confidence"])} interval {interval_text(row)}'
    )
    return drawing(f'<title>{title}</title>{"".join(parts)}', title, 28)


def axis_drawing(
    limit: float,  # Where the axis ends, in points
    x,  # Horizontal position of a number of points, in percent of the width
):
    "Draw the numbers of the axis."
    numbers = [
        f'<text x="{x(v):.2f}%" y="14" text-anchor="middle">{f"{v:+g}".replace("-", "−") if v else 0}</text>'
        for v in ticks(-limit, limit, 4)
    ]
    return drawing(''.join(numbers), 'axis, in percentage points', 18)


def drawing(
    content: str,  # SVG elements
    title: str,  # For screen readers
    height: int,  # In pixels
):
    "Return an SVG with horizontal positions in percent, so that its text keeps its size at any width."
    return Markup(f'<svg class="row" role="img" aria-label="{title}" width="100%" height="{height}">{content}</svg>')
