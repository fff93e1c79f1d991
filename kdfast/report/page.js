// Replaces the static charts by interactive ones (uPlot). Without JavaScript and in print the static ones are shown.
(() => {
  const hidden = new Set(), charts = [];
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dashes = [[], [8, 4], [2, 3]];

  // The point of a line that is nearest to x; none behind its ends: other recipes may have more epochs
  function pointAt({x: xs, y: ys}, x) {
    const i = xs.reduce((best, v, i) => Math.abs(v - x) < Math.abs(xs[best] - x) ? i : best, 0);
    const step = xs.length > 1 ? xs[1] - xs[0] : 0;
    return Math.abs(xs[i] - x) <= step / 2 ? {x: xs[i], y: ys[i]} : null;
  }

  function seedRange(chart, recipe, x) {  // long lines of seeds have fewer points than their mean
    const seeds = chart.lines.filter(line => line.recipe == recipe && !line.mean);
    const values = seeds.flatMap(line => { const i = line.x.indexOf(x); return i < 0 ? [] : [line.y[i]]; });
    if (!seeds.length || values.length < seeds.length) return '';
    return ` (${seeds.length} seeds: ${Math.min(...values)} … ${Math.max(...values)})`;
  }

  function describe(chart, plot) {
    if (plot.cursor.idx == null) return '';
    const x = plot.data[0][plot.cursor.idx];
    const texts = chart.lines.flatMap(line => {
      const point = line.mean && !hidden.has(line.recipe) && pointAt(line, x);
      if (!point) return [];
      const where = point.x == x ? '' : ` at ${chart.unit} ${point.x}`;
      return [`${line.recipe} ${point.y}${seedRange(chart, line.recipe, point.x)}${where}`];
    });
    return [`${chart.unit} ${x}`, ...texts].join('\n');
  }

  function draw(chart) {
    chart.plot?.destroy();
    const series = chart.lines.map(line => ({
      stroke: css(`--c${line.color % 6}`) + (line.mean ? '' : '70'), width: line.mean ? 2.2 : 0.8, spanGaps: true,
      dash: dashes[Math.floor(line.color / 6)], points: {show: line.x.length == 1}, show: !hidden.has(line.recipe),
    }));
    const axis = {stroke: css('--text'), grid: {stroke: css('--rule'), width: 1}, ticks: {show: false}, font: '11px system-ui'};
    const whole = (plot, values) => values.map(v => Number.isInteger(v) ? v : '');
    chart.plot = new uPlot({
      width: chart.figure.clientWidth, height: 230, legend: {show: false}, series: [{}, ...series],
      cursor: {dataIdx: (plot, series, at) => plot.data[series][at] == null ? null : at},  // no dot elsewhere
      scales: {x: {time: false}, y: {range: chart.range}},
      axes: [{...axis, label: chart.unit, labelSize: 18, labelFont: '11px system-ui', size: 26, values: whole},
             {...axis, size: 54, values: (plot, values) => values.map(v => `${+v.toPrecision(4)}`)}],
      hooks: {setCursor: [plot => { chart.tip.textContent = describe(chart, plot); }]},
    }, chart.data, chart.figure);
    chart.figure.append(chart.tip);
  }

  for (const source of document.querySelectorAll('script[type="application/json"]')) {
    const chart = JSON.parse(source.textContent);
    chart.figure = source.parentElement;
    chart.lines = chart.recipes.flatMap(({recipe, color, seeds, mean}) =>
      [...seeds, mean].map(line => ({...line, recipe, color, mean: line === mean})));
    chart.lines.forEach((line, i) => line.x ??= chart.lines[i - 1].x);
    chart.data = uPlot.join(chart.lines.map(line => [line.x, line.y]));
    chart.tip = document.createElement('div');
    chart.tip.className = 'tip';
    chart.figure.classList.add('live');
    charts.push(chart);
    draw(chart);
    new ResizeObserver(() => chart.plot.setSize({width: chart.figure.clientWidth, height: 230})).observe(chart.figure);
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => charts.forEach(draw));

  for (const key of document.querySelectorAll('.keys > span')) {  // switches each recipe off and on, in all charts
    const button = document.createElement('button');
    button.append(...key.childNodes);
    button.setAttribute('aria-pressed', true);
    const recipe = button.textContent.trim();
    button.onclick = () => {
      const show = hidden.delete(recipe) || !hidden.add(recipe);
      button.setAttribute('aria-pressed', show);
      for (const chart of charts)
        chart.lines.forEach((line, i) => line.recipe == recipe && chart.plot.setSeries(i + 1, {show}));
    };
    key.replaceWith(button);
  }

  document.addEventListener('mouseover', event => {  // what a cell of a confusion matrix counts
    const cell = event.target.closest('.heat td');
    if (!cell || cell.title) return;
    const row = cell.parentElement, head = cell.closest('table').tHead.rows[0];
    const n = +cell.textContent || 0, share = 100 * n / Math.max(row.dataset.n, 1);
    cell.title = `${row.cells[0].textContent} → ${head.cells[cell.cellIndex].textContent}: ${n} (${share.toFixed(1)} %)`;
  });
})();
