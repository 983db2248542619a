// Charts by uPlot, drawn on a canvas, and the same figures as a table for who does not see it.

import { fill, h, setAttribute, setText } from './dom.js';
import { number } from './format.js';
import { t } from './i18n.js';

const HEIGHT = 190;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7];
const FONT = '12px system-ui, sans-serif';

/**
 * `kind` is `line` or `bars`; `label(x)` names a point in full and `tick(x)` at the axis. Points are `[x, y]`, x in
 * seconds, or, with `ordinal`, a number that counts up. `sentence(points)` says in words what is to be seen.
 */
export function chart({ id, title, kind, ordinal = false, label, tick, sentence, column }) {
  const plot = h('div', { class: 'plot', role: 'img' });
  const readout = h('p', { class: 'readout' });
  const rows = h('tbody');
  const details = h('details', { class: 'figures', ontoggle: () => tabulate() }, h('summary', null, t('chart.table'), h('span', { class: 'hidden-text' }, `: ${title}`)),
    h('div', { class: 'figures-rows', tabindex: '0', role: 'region', 'aria-label': title }, h('table', null, h('caption', { class: 'hidden-text' }, title),
      h('thead', null, h('tr', null, h('th', { scope: 'col' }, column), h('th', { scope: 'col', class: 'end' }, t('chart.value')))), rows)));
  const node = h('figure', { class: 'chart', id }, h('figcaption', null, h('h3', null, title), readout), plot, details);

  let points = [];
  const nothing = () => points.every(([, y]) => y === 0);
  let drawn = null;
  let pointed = false;

  /** A canvas knows nothing of `light-dark()`: what it comes to here. */
  function colour(name) {
    plot.style.color = `var(${name})`;
    const { color } = getComputedStyle(plot);
    plot.style.color = '';
    return color;
  }

  function options() {
    const [ink, line, accent, ground] = ['--muted', '--line', '--accent', '--accent-ground'].map(colour);
    const bars = kind === 'bars' && { paths: uPlot.paths.bars({ size: [0.7, 34], radius: 0.15 }), points: { show: false } };
    const grid = { stroke: line, width: 1 };
    return {
      width: Math.max(plot.clientWidth, 120),
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false, setScale: false }, points: { size: 7 } },
      scales: { x: { time: !ordinal, range: (_, low, high) => (kind === 'bars' ? [low - 0.6, high + 0.6] : [low, high]) }, y: { range: (_, __, high) => [0, Math.max(high * 1.12, 4)] } },
      axes: [
        { stroke: ink, grid: { show: false }, ticks: { ...grid, size: 4 }, font: FONT, size: 30, space: 64, ...(ordinal && { incrs: WHOLE }), values: (_, at) => at.map(tick) },
        { stroke: ink, grid, ticks: { show: false }, font: FONT, size: 46, space: 34, incrs: WHOLE, values: (_, at) => at.map(number) },
      ],
      series: [{}, { stroke: accent, fill: ground, width: bars ? 0 : 1.75, points: { show: false }, ...bars, ...(bars && { fill: accent }) }],
      hooks: { setCursor: [point] },
    };
  }

  function point(plotted) {
    const index = plotted.cursor.idx;
    pointed = index !== null && index !== undefined && points[index] !== undefined;
    say(pointed ? points[index] : undefined);
  }

  function say(one) {
    setText(readout, one ? `${label(one[0])}: ${number(one[1])}` : nothing() ? '' : sentence(points));
  }

  function columns() {
    return [points.map(([x]) => x), points.map(([, y]) => y)];
  }

  function draw() {
    if (nothing() || !plot.isConnected || plot.clientWidth === 0) return;
    drawn?.destroy();
    drawn = new uPlot(options(), columns(), plot);
  }

  function tabulate() {
    if (!details.open) return fill(rows);
    fill(rows, points.map(([x, y]) => h('tr', null, h('th', { scope: 'row' }, label(x)), h('td', { class: 'end' }, number(y)))));
  }

  let pending = false;
  const resize = new ResizeObserver(() => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      if (!drawn) draw();
      else if (plot.clientWidth > 0 && plot.clientWidth !== drawn.width) drawn.setSize({ width: plot.clientWidth, height: HEIGHT });
    });
  });
  resize.observe(plot);

  /** Shows these points; `quietly` leaves an open table alone, which nobody can read while it changes every second. */
  function set(next, { quietly = false } = {}) {
    points = next;
    if (!pointed) say();
    setAttribute(plot, 'aria-label', `${title}. ${nothing() ? t('chart.nothing') : sentence(points)}`);
    if (nothing()) {
      drawn?.destroy();
      drawn = null;
      fill(plot, h('p', { class: 'none' }, t('chart.nothing')));
    } else if (drawn) {
      drawn.setData(columns());
    } else {
      fill(plot);
      draw();
    }
    if (!quietly) tabulate();
  }

  window.addEventListener('schemechange', draw);
  function destroy() {
    window.removeEventListener('schemechange', draw);
    resize.disconnect();
    drawn?.destroy();
    drawn = null;
  }

  return { node, set, destroy, failed: (content) => fill(plot, content) };
}

/** The highest of some points; the latest of equals. */
export function highest(points) {
  return points.reduce((best, one) => (one[1] >= best[1] ? one : best), points[0]);
}
