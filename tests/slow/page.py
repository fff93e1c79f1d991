"""Look at a page in Chromium: `python tests/slow/page.py report.html [--axe axe.min.js] [--shots FOLDER]`.

At 400, 800 and 1,400 pixels, light and dark, and in print: no overlapping text, nothing wider than the page, no console
message, no request; and what `page_actions` tries: the values under the mouse, the switches, the keyboard, static
figures in print. With axe.min.js (npm package axe-core), also no serious fault of accessibility. If the result of
`kdfast compare --json` lies beside the page as compare.json, the last values of the curves are compared with it.

`python tests/slow/many_runs.py FOLDER` writes a page of many recipes and seeds. Needs Chromium and the package
playwright.
"""

import argparse
import shutil
import sys
from pathlib import Path

import page_actions

WIDTHS = 400, 800, 1400
SERIOUS = 'serious', 'critical'
# Boxes of text of different elements that share more than two pixels in both directions, within what is shown
OVERLAPS = """() => {
  const clipped = ({left, right, top, bottom}, element) => {
    for (let e = element; e; e = e.parentElement) {
      if (getComputedStyle(e).overflowX == 'visible') continue;
      const r = e.getBoundingClientRect();
      [left, right] = [Math.max(left, r.left), Math.min(right, r.right)];
      [top, bottom] = [Math.max(top, r.top), Math.min(bottom, r.bottom)];
    }
    return {left, right, top, bottom};
  };
  const boxes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest('script, style, nav, title')) continue;
    if (!element.checkVisibility()) continue;
    if (getComputedStyle(element.closest('thead') || element).clipPath != 'none') continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rect of range.getClientRects()) {
      const box = clipped(rect, element);
      if (box.right > box.left && box.bottom > box.top) boxes.push([box, node]);
    }
  }
  boxes.sort((a, b) => a[0].top - b[0].top);
  const found = [];
  boxes.forEach(([a, one], i) => {
    for (let j = i + 1; j < boxes.length && boxes[j][0].top < a.bottom; j++) {
      const [b, other] = boxes[j];
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 2 && high > 4 && one != other) found.push(`${one.textContent.trim()} | ${other.textContent.trim()}`);
    }
  });
  return found;
}"""
TOO_WIDE = '() => document.documentElement.scrollWidth - document.documentElement.clientWidth'
AXE = """() => axe.run().then(({violations}) => violations.map(({impact, id, nodes}) =>
  [impact, `${id}: ${nodes.length}×, ${nodes[0].html.slice(0, 150)} ${nodes[0].failureSummary.slice(0, 300)}`]))"""


def problems_of(
    browser,  # Of playwright
    file,  # The page
    axe,  # Text of axe.min.js, or None
    shots,  # Directory of screenshots, or None
):
    "Yield a sentence per problem."
    for media, scheme in (('screen', 'light'), ('screen', 'dark'), ('print', 'light')):
        for width in WIDTHS:
            context = browser.new_context(
                viewport=dict(width=width, height=900), color_scheme=scheme, bypass_csp=bool(axe)
            )
            page = context.new_page()
            messages = watched(page)
            page.emulate_media(media=media, color_scheme=scheme)
            page.goto(file.resolve().as_uri())
            page.wait_for_timeout(300)
            page.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
            found = [f'overlap: {text}' for text in page.evaluate(OVERLAPS)]
            if media == 'screen':
                found += [f'{where} {text}' for where, text in page_actions.problems_of(page, file)]
                found += [f'overlap after use: {text}' for text in page.evaluate(OVERLAPS)]
                if (excess := page.evaluate(TOO_WIDE)) > 0:
                    found.append(f'{excess} pixels wider than the window')
            else:
                found += page_actions.print_problems(page)
            if axe and media == 'screen':
                page.evaluate(axe)
                found += [f'axe, {impact}: {text}' for impact, text in page.evaluate(AXE) if impact in SERIOUS]
            if shots:
                page.screenshot(path=shots / f'{media}-{scheme}-{width}.png', full_page=True)
            context.close()
            page_address = file.resolve().as_uri()
            found += [m for m in messages if m != f'request: {page_address}' and not m.startswith('request: data:')]
            yield from (f'{media}, {scheme}, {width} pixels: {text}' for text in dict.fromkeys(found))


def watched(
    page,  # Of playwright, before it loads anything
):
    "Return the list that receives what the page writes to the console, its errors and its requests."
    messages = []
    page.on('console', lambda message: messages.append(f'console: {message.text}'))
    page.on('pageerror', lambda error: messages.append(f'error: {error}'))
    page.on('request', lambda request: messages.append(f'request: {request.url}'))
    return messages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', type=Path, help='the page, of `kdfast report`')
    parser.add_argument('--axe', type=Path, help='axe.min.js of the npm package axe-core')
    parser.add_argument('--shots', type=Path, help='directory for screenshots')
    given = parser.parse_args()
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit('skipped: the package playwright is not installed')
    if not chromium:
        print('skipped: Chromium is not installed')
        return
    if given.shots:
        given.shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        axe = given.axe.read_text() if given.axe else None
        found = list(problems_of(browser, given.file, axe, given.shots))
        browser.close()
    size = given.file.stat().st_size
    if size >= 2e6:
        found.append(f'{size:,} bytes: expected less than 2,000,000')
    print('\n'.join(found) or f'no problem at {", ".join(map(str, WIDTHS))} pixels, light, dark and print')
    sys.exit(bool(found))


if __name__ == '__main__':
    main()
