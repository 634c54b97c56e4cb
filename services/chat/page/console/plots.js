// Charts by uPlot, in the page's colours and words. A value that was not measured is a gap, never a line across it; an
// interval is a band, or a bar where the neighbours are missing; versions that failed or were refused are marked.
//
// The legend of a chart reads what is under the pointer, or the last version. With the keyboard the arrows move that.
import { announce, $, make } from "../dom.js";
import { t } from "../words.js";

const HEIGHT = 190, WHOLE = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5].map((power) => n * 10 ** power)).sort((a, b) => a - b);
const COLOURS = { accent: "--accent", dim: "--dim", line: "--line", bad: "--bad", background: "--bg" };
const { uPlot } = window;
const shown = new Set();

const styles = getComputedStyle(document.documentElement);  // as they are when they are asked for
const colour = (name) => styles.getPropertyValue(COLOURS[name]);
const veil = (name) => `color-mix(in srgb, ${colour(name)} 22%, transparent)`;

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { plot } of shown) plot?.redraw();
});

// A figure whose canvas is as wide as there is room; `empty` stands in its place where nothing was measured.
class Plot {
  constructor(title, empty) {
    Object.assign(this, { title, plot: null });
    this.canvas = make("div", "canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", title);
    this.empty = make("p", "none", empty);
    this.figure = make("figure", "plot", make("h2", "", title), this.canvas, this.empty);
    this.sizes = new ResizeObserver(([{ contentRect: { width } }]) => {
      if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
    });
  }

  draw(some, data) {
    this.empty.hidden = some;
    this.canvas.hidden = !some;
    if (!some) return;
    if (this.plot) return this.plot.setData(data);
    const size = { width: this.canvas.clientWidth || 320, height: HEIGHT, padding: [10, 12, 0, 0], legend: { show: false } };
    this.plot = new uPlot({ ...size, ...this.options() }, data, this.canvas);
    this.sizes.observe(this.canvas);
    shown.add(this);
  }

  destroy() {
    shown.delete(this);
    this.sizes.disconnect();
    this.plot?.destroy();
    this.plot = null;
  }
}

const FONT = "12px system-ui, sans-serif";
const axis = (label, size, options) => ({
  label, size, labelSize: 20, font: FONT, labelFont: FONT, stroke: () => colour("dim"),
  grid: { stroke: () => colour("line"), width: 1 }, ticks: { stroke: () => colour("line"), width: 1, size: 5 }, ...options,
});

// Values by version. `lines`: [{ column, label, colour, dash, low, high }], the first is the one that is marked, `low` and
// `high` the columns of its band; `x`, `y`: words for what the axes measure; `write`: a value in words; `range`: of y, if
// it is fixed; `at`: a value to draw a line at; `note`: what a reader should know. With `dots` the places stand along x by
// a value and not by version: the first of `lines` is drawn, as dots, with the line on which both axes say the same.
export class Chart extends Plot {
  constructor({ title, note, x, y, lines, write, range, at, dots }) {
    super(title, t("notMeasured"));
    Object.assign(this, { x, y, lines, write, range, at, dots, rows: null, index: -1 });
    this.legend = make("ul", "legend");
    this.canvas.before(this.legend);
    this.canvas.tabIndex = 0;
    this.canvas.onkeydown = (event) => this.step(event);
    if (note) this.figure.append(make("figcaption", "quiet", note));
  }

  get drawn() {
    return this.dots ? this.lines.slice(0, 1) : this.lines;
  }

  // `rows`: the columns, and `xs`, `names` and `state` of each place.
  show(rows) {
    this.rows = rows;
    const columns = this.drawn.flatMap(({ column, low, high }) => low && !this.dots ? [column, high, low] : [column]);
    const measured = this.lines.some(({ column }) => rows[column].some((value) => value !== null));
    this.draw(measured, [rows.xs, ...columns.map((name) => rows[name])]);
    this.read(null);
  }

  options() {
    const series = [{}], bands = [];
    for (const { colour: name, dash, low } of this.drawn) {
      const hue = () => colour(name);
      series.push({ stroke: hue, width: 1.75, dash, points: { size: 5, stroke: hue, fill: hue },
                    ...(this.dots ? { paths: () => null } : {}) });
      if (!low || this.dots) continue;
      const edge = { stroke: "transparent", width: 0, points: { show: false } };
      series.push(edge, { ...edge });
      bands.push({ series: [series.length - 2, series.length - 1], fill: () => veil(name) });
    }
    return {
      series, bands,
      cursor: { sync: { key: this.x }, drag: { x: true, y: false }, points: { size: 8 } },
      scales: { x: { time: false, range: this.dots ? spread : around }, y: { range: this.range ?? spread } },
      axes: [axis(this.x, 30, this.dots ? { values: (_, ticks) => ticks.map((tick) => this.write(tick)) } : { incrs: WHOLE }),
             axis(this.y, 62, { values: (_, ticks) => ticks.map((tick) => this.write(tick)) })],
      hooks: { draw: [() => this.mark()], setCursor: [({ cursor }) => this.read(cursor.idx)] },
    };
  }

  // Over the lines: the line at a value, bars of single intervals, versions that were refused or failed.
  mark() {
    const { plot, rows } = this, { ctx, bbox } = plot, dot = devicePixelRatio;
    const px = (i) => plot.valToPos(rows.xs[i], "x", true), py = (value) => plot.valToPos(value, "y", true);
    const stroke = (style, width, draw) => {
      ctx.strokeStyle = style;
      ctx.lineWidth = width * dot;
      ctx.beginPath();
      draw();
      ctx.stroke();
    };
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.setLineDash([]);
    const bad = colour("bad"), dim = colour("dim");
    ctx.fillStyle = colour("background");
    if (this.at !== undefined) {
      const y = py(this.at);
      stroke(dim, 1, () => { ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); });
    }
    if (this.dots) {
      const { min, max } = plot.scales.x;
      stroke(dim, 1, () => {
        ctx.moveTo(plot.valToPos(min, "x", true), py(min));
        ctx.lineTo(plot.valToPos(max, "x", true), py(max));
      });
    }
    const [{ column, low, high, colour: name }] = this.lines, values = rows[column];
    values.forEach((value, i) => {
      if (value === null) return;
      if (this.dots || ((values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null)) {
        stroke(colour(name), 1.25, () => {
          if (low && rows[low][i] !== null) {
            ctx.moveTo(px(i), py(rows[low][i]));
            ctx.lineTo(px(i), py(rows[high][i]));
          }
          ctx.moveTo(px(i) + 2 * dot, py(value));
          ctx.arc(px(i), py(value), 2 * dot, 0, 2 * Math.PI);
        });
      }
      const state = rows.state[i], y = py(value), arm = 4 * dot;
      if (state === "failed") {
        stroke(bad, 2, () => {
          for (const turn of [1, -1]) {
            ctx.moveTo(px(i) - arm, y - turn * arm);
            ctx.lineTo(px(i) + arm, y + turn * arm);
          }
        });
      } else if (state === "rejected") {
        stroke(dim, 1.5, () => {
          ctx.arc(px(i), y, 3 * dot, 0, 2 * Math.PI);
          ctx.fill();
        });
      }
    });
    ctx.restore();
  }

  // Into the legend: the values at that place, or the last ones.
  read(index) {
    const { rows } = this, at = index ?? lastMeasured(rows, this.lines);
    const items = this.lines.map(({ column, label, colour: name, low, high }) => {
      const value = rows[column][at] ?? null, range = low && value !== null && rows[low][at] !== null
        ? ` (${this.write(rows[low][at])} … ${this.write(rows[high][at])})` : "";
      return make("li", "", make("i", `swatch ${name}`), `${label} `, make("b", "", value === null ? "–" : this.write(value)), range);
    });
    const state = rows.state[at], mark = ["failed", "rejected"].includes(state) ? ` · ${t(`state.${state}`)}` : "";
    this.legend.replaceChildren(make("li", "at", at < 0 ? "" : `${rows.names[at]}${mark}`), ...items);
    this.index = at;
    this.canvas.setAttribute("aria-label", `${this.title}: ${this.said()}. ${t("arrows")}`);
  }

  said() {
    return Array.from(this.legend.children, ({ textContent }) => textContent).join(", ");
  }

  step(event) {
    const last = this.rows.xs.length - 1, by = { ArrowLeft: this.index - 1, ArrowRight: this.index + 1, Home: 0, End: last };
    if (!(event.key in by)) return;
    event.preventDefault();
    pointAt(Math.min(Math.max(by[event.key], 0), last), [this]);
    $("announcer").replaceChildren();
    announce(this.said());
  }

  point(index) {
    if (!this.plot) return this.read(index);
    const value = this.lines.map(({ column }) => this.rows[column][index]).find((each) => each !== null) ?? 0;
    this.plot.setCursor({ left: this.plot.valToPos(this.rows.xs[index], "x"), top: this.plot.valToPos(value, "y") }, true, true);
  }
}

// All charts read this place.
export function pointAt(index, charts) {
  for (const chart of charts) chart.point(index);
}

// Bars around whole numbers; `splits` are the places on the axis that `writeX` puts in words.
export class Bars extends Plot {
  constructor({ title, x, y, splits, writeX }) {
    super(title, t("nothingYet"));
    Object.assign(this, { x, y, splits, writeX });
  }

  show(xs, ys, said) {
    this.canvas.setAttribute("aria-label", `${this.title}: ${said}`);
    this.draw(ys.some((value) => value), [xs, ys]);
  }

  options() {
    return {
      cursor: { show: false },
      series: [{}, { stroke: () => colour("accent"), fill: () => veil("accent"), width: 1,
                     paths: uPlot.paths.bars({ size: [1, Infinity], gap: 1 }), points: { show: false } }],
      scales: { x: { time: false, range: (_, low, high) => [low - .5, high + .5] },
                y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.08] } },
      axes: [axis(this.x, 30, { grid: { show: false }, splits: (plot) => this.splits(plot),
                                values: (_, places) => places.map((place) => this.writeX(place)) }),
             axis(this.y, 50, { incrs: WHOLE })],
    };
  }
}

const around = (_, low, high) => low === high ? [low - 1, high + 1] : [low, high];

function spread(_, low, high) {
  if (low === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * .1;
  return [low - room, high + room];
}

function lastMeasured(rows, lines) {
  return rows.xs.findLastIndex((_, i) => lines.some(({ column }) => rows[column][i] !== null));
}
