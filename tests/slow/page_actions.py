"""What a reader does with the page: move the mouse over plots, switch recipes off, use the keyboard, print."""

import json
import re
from math import isclose

NUMBER = r'-?\d[\d.]*(?:e[+-]?\d+)?'
TITLE = 'accuracy, validation images, by epoch'  # of the plot whose last values are those of compare.json
DIGITS = 6e-4  # relative: the page has four digits
PRECISION = 0.002  # curves are of bfloat16 where training is, results of float32
PIXELS = 3  # between the mouse and the value that is shown; a plot may begin between two pixels
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const label = e.matches('nav a') ? 'link ' : e.matches('.keys button') ? 'switch ' : '';
  const isVisible = style.outlineStyle != 'none' && parseFloat(style.outlineWidth) > 0;
  return [label + e.textContent.trim().slice(0, 60), isVisible];
}"""
LINE_COLOR = 'name => getComputedStyle(document.querySelector(`svg .line.${name}`)).stroke'
DRAWN = "canvas => canvas.toDataURL()"
MAX_TABS = 400


def problems_of(
    page,  # Of playwright; the page is loaded
    file,  # Its path
):
    "Yield where something is wrong, and what."
    yield from key_problems(page)
    yield from hover_problems(page, file)
    yield from switch_problems(page)
    yield from keyboard_problems(page)


# Plots


def plots(
    page,  # Of playwright
):
    "Return title, content and figure of each interactive plot."
    figures = page.locator('figure.live').all()
    sources = [json.loads(figure.locator('script').text_content()) for figure in figures]
    return [(figure.locator('figcaption').text_content(), chart, figure) for figure, chart in zip(figures, sources)]


def hover_problems(
    page,  # Of playwright
    file,  # Its path
):
    "Compare the values beside a plot with the values of the lines, at three positions of the mouse."
    compared = file.with_name('compare.json')
    scores = {row['recipe']: row for row in json.loads(compared.read_text())} if compared.exists() else {}
    for title, chart, figure in plots(page):
        lines = {line['recipe']: with_x(line) for line in chart['recipes']}
        xs = sorted({x for line in lines.values() for of_line in line for x in of_line})
        means = next(iter(lines.values()))[-1]
        for x in {min(means), sorted(means)[len(means) // 2], max(means)}:
            text, width = text_at(page, figure, (x - xs[0]) / max(xs[-1] - xs[0], 1e-9))
            shown = re.match(rf'{chart["unit"]} ({NUMBER})\n', text)
            if not shown or abs(float(shown[1]) - x) > PIXELS * (xs[-1] - xs[0]) / width:
                yield title, f'the mouse at {x} shows {text[:60]!r}'
                continue
            for recipe, line in lines.items():
                yield from ((title, problem) for problem in value_problems(text, recipe, line, float(shown[1])))
        if title == TITLE:
            for recipe, line in lines.items():
                yield from ((title, problem) for problem in score_problems(scores.get(recipe), line[-1]))


def with_x(
    line,  # Of a plot: the lines of a recipe
):
    "Return x → y of each seed and, last, of the mean; a line without x has that of the line before."
    found, x = [], None
    for of_line in (*line['seeds'], line['mean']):
        x = of_line.get('x', x)
        found.append(dict(zip(x, of_line['y'])))
    return found


def text_at(
    page,  # Of playwright
    figure,  # Of a plot
    share,  # Of its width
):
    "Return the text beside a plot with the mouse above it, and the width of the plot."
    figure.scroll_into_view_if_needed()
    box = figure.locator('.u-over').bounding_box()
    page.mouse.move(box['x'] + min(max(share * box['width'], 0.5), box['width'] - 0.5), box['y'] + box['height'] / 2)
    page.wait_for_timeout(60)
    return figure.locator('.tip').text_content(), box['width']


def value_problems(
    text,  # Beside the plot
    recipe,  # Name of a line
    lines,  # x → y of each seed and of the mean
    x,  # Of the values that are shown
):
    "Yield what differs from the values of the lines: a value at x, or at a point of a line that has none there."
    *seeds, mean = lines
    pattern = rf'^{re.escape(recipe)} ({NUMBER})(?: \(\d+ seeds: ({NUMBER}) … ({NUMBER})\))?(?: at \w+ ({NUMBER}))?$'
    found = re.search(pattern, text, re.M)
    if not found:
        if x in mean:
            yield f'no value of {recipe} at {x}'
        return
    at = float(found[4] or x)
    if (at != x and x in mean) or not min(mean) <= at <= max(mean):
        yield f'{recipe} at {x}: shows the value at {at}'
    elif float(found[1]) != mean[at]:
        yield f'{recipe} at {at}: shows {found[1]}, expected {mean[at]}'
    of_seeds = [seed[at] for seed in seeds if at in seed]
    expected = [min(of_seeds), max(of_seeds)] if of_seeds and len(of_seeds) == len(seeds) else [None, None]
    if [value and float(value) for value in found.groups()[1:3]] != expected:
        yield f'seeds of {recipe} at {at}: show {found[2]} … {found[3]}, expected {expected}'


def score_problems(
    row,  # Of compare.json, or None
    mean,  # x → y of the mean
):
    "Yield a problem if the last value of the curve is not the mean of the results."
    if row and not isclose(mean[max(mean)], row['valid_accuracy']['mean'], rel_tol=DIGITS, abs_tol=PRECISION):
        yield f'{row["recipe"]} ends at {mean[max(mean)]}, the results are {row["valid_accuracy"]["mean"]}'


# Switches and keyboard


def key_problems(
    page,  # Of playwright
):
    "Compare the color and the dashes of each switch with those of its static line."
    for button in page.locator('.keys button').all():
        key, name = button.locator('.key'), button.text_content().strip()
        number = re.search(r'\bc(\d+)', key.get_attribute('class'))[1]
        shown = key.evaluate('e => [getComputedStyle(e).borderTopColor, getComputedStyle(e).borderTopStyle]')
        color = page.evaluate(LINE_COLOR, f'c{number}')
        if shown != [color, ('solid', 'dashed', 'dotted')[int(number) // 6]]:
            yield 'keys', f'{name} is shown as {shown}, its lines are {color}'


def switch_problems(
    page,  # Of playwright
):
    "Switch the first and the last recipe off and on, and look at the plots."
    title, chart, figure = plots(page)[0]
    canvas = figure.locator('canvas').first
    for button in {0: page.locator('.keys button').first, 1: page.locator('.keys button').last}.values():
        name = button.text_content().strip()
        if name not in {line['recipe'] for line in chart['recipes']}:
            continue
        before = canvas.evaluate(DRAWN)
        button.click()
        page.wait_for_timeout(100)
        if button.get_attribute('aria-pressed') != 'false' or canvas.evaluate(DRAWN) == before:
            yield title, f'{name} is switched off and still drawn'
        if re.search(rf'^{re.escape(name)} {NUMBER}', text_at(page, figure, 0.5)[0], re.M):
            yield title, f'{name} is switched off and still has a value'
        button.click()
        page.mouse.move(0, 0)
        page.wait_for_timeout(100)
        if button.get_attribute('aria-pressed') != 'true' or canvas.evaluate(DRAWN) != before:
            yield title, f'{name} is switched on again and drawn otherwise than before'


def keyboard_problems(
    page,  # Of playwright
):
    "Reach every link of the navigation and every switch by Tab, see the focus, and use one of each."
    page.evaluate('document.activeElement.blur(); scrollTo(0, 0)')
    wanted = [f'link {text.strip()[:60]}' for text in page.locator('nav a').all_text_contents()]
    wanted += [f'switch {text.strip()[:60]}' for text in page.locator('.keys button').all_text_contents()]
    reached = []
    for _ in range(MAX_TABS):
        page.keyboard.press('Tab')
        name, is_visible = page.evaluate(FOCUSED)
        if name not in wanted or name in reached:
            if len(reached) == len(wanted):
                break
            continue
        reached.append(name)
        if not is_visible:
            yield 'keyboard', f'the focus is not visible on {name}'
        if len(reached) == 2:
            page.keyboard.press('Enter')
            if not page.url.endswith(page.locator('nav a').nth(1).get_attribute('href')):
                yield 'keyboard', f'Enter does not follow {name}'
            page.locator('nav a').nth(1).focus()
        if name == wanted[-1]:
            states = [pressed_after(page, key) for key in ('Space', 'Enter')]
            if states != ['false', 'true']:
                yield 'keyboard', f'Space and Enter set {name} to {states}'
    if reached != wanted:
        yield 'keyboard', f'Tab does not reach {[name for name in wanted if name not in reached] or "them in order"}'


def pressed_after(
    page,  # Of playwright; a switch has the focus
    key,  # To press
):
    "Return the state of the switch after a key."
    page.keyboard.press(key)
    return page.evaluate('document.activeElement.getAttribute("aria-pressed")')


# Print


def print_problems(
    page,  # Of playwright, as it is printed
):
    "Yield plots that are not printed as static figures, and controls that are printed."
    for figure in page.locator('figure.live').all():
        title = figure.locator('figcaption').text_content()
        size = figure.locator('> svg').bounding_box()
        if not size or size['height'] < 50:
            yield f'{title}: no static figure'
        if figure.locator('.uplot').is_visible() or figure.locator('.tip').is_visible():
            yield f'{title}: the interactive plot is printed'
    if page.locator('nav').is_visible():
        yield 'the navigation is printed'
