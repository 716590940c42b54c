// Charts by uPlot, each with its table behind it.
//
// `figure` returns the place of a chart with its table, as other elements of a page, and notes what it shows. After the page
// was updated, `drawCharts` draws it there, once it is in sight or nearly: uPlot is loaded with the first. Charts take their
// colours from the style sheet, so they are made anew when those change.

import { h } from "./dom.js";

/** How a series is drawn: the colour's name in the style sheet, its width, and its dashes. */
const TONES = {
  calls: { colour: "--accent", width: 0, dash: [] },
  warn: { colour: "--warn", width: 0, dash: [] },
  bad: { colour: "--bad", width: 0, dash: [] },
  strong: { colour: "--accent", width: 2, dash: [] },
  middle: { colour: "--soft", width: 1.5, dash: [7, 3] },
  outer: { colour: "--ink", width: 1.5, dash: [2, 3] },
};

const COLOURS = [...new Set(Object.values(TONES).map(({ colour }) => colour)), "--line"];

/** Height of a chart, in units of the text's size. */
const HEIGHT = 14;

/** How near to the window a chart is drawn. */
const NEARLY = "200px";

const wanted = new Map();
const drawn = new Map();
let loading = null;

function load() {
  loading ??= new Promise((loaded, failed) => {
    const script = document.createElement("script");
    script.src = "/assets/uPlot.iife.min.js";
    script.onload = () => loaded(globalThis.uPlot);
    script.onerror = () => {
      loading = null;
      failed(new Error("uPlot can't be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

/**
 * Returns a chart's place and its table.
 *
 * `chart` has: `kind` (bars, or lines; with bars, tones of lines are lines), `starts` (of windows, in ms), `widthMs`, `zone`, `series` ([{ label, tone, values, shown }],
 * where `values` are numbers or null, and `shown` the same as texts), `x` and `y` (which format a value of an axis), `window`
 * (which formats a window's start), `label`, and for the table `summary`, `head` and `rows` of texts, the newest first.
 */
export function figure(key, chart) {
  wanted.set(key, chart);
  return h("figure", { "data-key": key },
    h("div", { class: "chart", "data-own": key }),
    h("details", { class: "behind" },
      h("summary", {}, chart.summary),
      table(chart.head, chart.rows, chart.label)));
}

/** Returns a table that scrolls in itself; the first column names the row, the others are numbers. */
function table(head, rows, label) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label },
    h("table", { class: "figures" },
      h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, rows.map(([first, ...rest]) =>
        h("tr", { "data-key": first }, h("th", { scope: "row" }, first), rest.map((text) => h("td", {}, text)))))));
}

/** Draws the charts whose places are there now, and ends the others. */
export function drawCharts() {
  const places = new Map();
  for (const place of document.querySelectorAll("[data-own]")) places.set(place.dataset.own, place);
  for (const [key, chart] of drawn) {
    if (places.get(key) === chart.place) continue;
    chart.end();
    drawn.delete(key);
  }
  for (const [key, place] of places) {
    if (!drawn.has(key)) drawn.set(key, new Chart(place));
    drawn.get(key).show(wanted.get(key));
  }
  for (const key of wanted.keys()) if (!places.has(key)) wanted.delete(key);
}

class Chart {
  #made = null;
  /** What a chart can't change once it is made. */
  #form = "";
  #shown = null;
  #legend = h("div", { class: "legend", "aria-hidden": "true" });
  #plot = h("div", { class: "plot", role: "img" });
  #size;
  #sight;
  #isSeen = false;

  constructor(place) {
    this.place = place;
    place.replaceChildren(this.#legend, this.#plot);
    this.#size = new ResizeObserver(() => this.#fit());
    this.#size.observe(place);
    this.#sight = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      this.#sight.disconnect();
      // Without uPlot the tables are still there.
      load().then(() => {
        this.#isSeen = true;
        this.#draw();
      }, () => this.#sight.observe(place));
    }, { rootMargin: NEARLY });
    this.#sight.observe(place);
  }

  show(chart) {
    this.#shown = chart;
    this.#plot.setAttribute("aria-label", chart.label);
    this.#point(this.#made?.cursor.idx);
    this.#draw();
  }

  #draw() {
    if (!this.#isSeen) return;
    const { starts, series, kind, zone, widthMs } = this.#shown;
    const style = getComputedStyle(document.documentElement);
    const colours = COLOURS.map((name) => this.#colour(name));
    const labels = series.map(({ label, tone }) => [label, tone]);
    const form = JSON.stringify([kind, zone, widthMs, labels, colours, style.fontSize]);
    const data = [starts.map((start) => start / 1_000), ...series.map(({ values }) => values)];
    if (form !== this.#form) {
      this.#made?.destroy();
      this.#form = form;
      this.#made = new globalThis.uPlot(this.#options(style), data, this.#plot);
    } else {
      this.#made.setData(data);
    }
  }

  end() {
    this.#isSeen = false;
    this.#sight.disconnect();
    this.#size.disconnect();
    this.#made?.destroy();
  }

  #fit() {
    const width = this.place.clientWidth;
    if (this.#made && width > 0 && width !== this.#made.width) this.#made.setSize({ width, height: this.#made.height });
  }

  /** Shows the values of a window, or those of the newest. */
  #point(index) {
    const { starts, series, window } = this.#shown;
    const at = index ?? starts.length - 1;
    this.#legend.replaceChildren(
      h("span", { class: "at" }, starts.length > 0 ? window(starts[at]) : ""),
      ...series.map(({ label, tone, shown }) =>
        h("span", { class: "entry" }, h("i", { class: `swatch ${tone}` }), label, " ", h("b", {}, shown[at] ?? ""))));
  }

  /** Returns a colour of the style sheet as it is now: a canvas doesn't know its variables. */
  #colour(name) {
    this.#plot.style.color = `var(${name})`;
    return getComputedStyle(this.#plot).color;
  }

  #options(style) {
    const { kind, zone, widthMs, series } = this.#shown;
    const uPlot = globalThis.uPlot;
    const colour = (name) => this.#colour(name);
    const em = Number.parseFloat(style.fontSize);
    const font = `${Math.round(em * 0.8)}px ${style.fontFamily}`;
    const axis = {
      stroke: colour("--soft"), font,
      grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 },
    };
    const bars = uPlot.paths.bars({ size: [0.8, 4 * em], align: 1 });
    return {
      width: Math.max(this.place.clientWidth, 1), height: HEIGHT * em, padding: [em / 2, em * 1.6, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: kind === "lines", size: 7 } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), zone),
      scales: {
        x: {
          time: true,
          range: (_, min, max) => kind === "bars" ? [min, max + widthMs / 1_000] : [min, Math.max(max, min + 1)],
        },
        y: { range: (_, min, max) => [0, max > 0 ? max * 1.08 : 1] },
      },
      axes: [
        {
          ...axis, space: 5 * em, size: 1.9 * em,
          // No tick is finer than a window.
          incrs: INCREMENTS.filter((seconds) => seconds * 1_000 >= widthMs),
          values: (_, splits) => splits.map((split) => this.#shown.x(split * 1_000)),
        },
        {
          // Nothing that is counted has parts.
          ...axis, space: 2.6 * em, incrs: WHOLE, size: (_, values) => em * (1 + 0.5 * Math.max(2, ...(values ?? []).map((text) => text.length))),
          values: (_, splits) => splits.map((split) => this.#shown.y(split)),
        },
      ],
      series: [
        {},
        ...series.map(({ label, tone }) => {
          const { colour: name, width, dash } = TONES[tone];
          return kind === "bars" && width === 0
            ? { label, paths: bars, fill: colour(name), width: 0, points: { show: false } }
            : { label, stroke: colour(name), width, dash, spanGaps: false, points: { show: kind === "lines", size: 4, fill: colour(name) } };
        }),
      ],
      hooks: { setCursor: [(plot) => this.#point(plot.cursor.idx)] },
    };
  }
}

/** Steps between the ticks of an axis of values: 1, 2 or 5 and zeros. */
const WHOLE = Array.from({ length: 20 }, (_, zeros) => [1, 2, 5].map((digit) => digit * 10 ** zeros)).flat();

/** Steps between the ticks of a time axis, in seconds: minutes, hours, days. */
const INCREMENTS = [
  ...[1, 5, 10, 15, 30].map((minutes) => minutes * 60),
  ...[1, 2, 3, 6, 12].map((hours) => hours * 3_600),
  ...[1, 2, 3, 5, 7, 10, 14, 28].map((days) => days * 86_400),
];
