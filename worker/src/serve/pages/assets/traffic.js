// Calls, errors and latency over time, and the countries of a key.

import { figure } from "./chart.js";
import { foreign, h } from "./dom.js";
import { compact, country, day, latency, moment, percent, size, time, whole, zoneName } from "./format.js";
import { choice, empty, section, waiting } from "./parts.js";
import { WIDTHS, filled } from "./windows.js";

const sum = (rows, column) => rows.reduce((all, row) => all + BigInt(row[column]), 0n);

/** How times of windows are shown: days are those of UTC, others are local. */
function clockOf(view, widths) {
  const { language, now } = view;
  const isDays = widths === "days";
  const zone = isDays ? "UTC" : zoneName(view.zone);
  const midnight = (at) => time(at, zone) === "00:00";
  return {
    zone,
    window: (start) => isDays ? day(start, zone, language, now) : moment(start, zone, language, now),
    x: (start) => isDays || midnight(start) ? day(start, zone, language, now) : time(start, zone),
  };
}

/** A chart of calls and errors, or why there is none. */
export function callsFigure(view, key, title, answer) {
  const { words, language, tick } = view;
  const { widths } = answer;
  const { usageMs: widthMs, usageCount: count } = WIDTHS[widths];
  const windows = filled(answer.rows, { widthMs, count, since: answer.since, tick });
  if (windows.length === 0) return empty(words.noUse);
  const { zone, window, x } = clockOf(view, widths);
  const rows = windows.map(({ row }) => row).filter(Boolean);
  const errors = (row) => BigInt(row.errors_4xx) + BigInt(row.errors_5xx);
  const numbers = (value) => windows.map(({ row, isKnown }) => (row ? Number(value(row)) : isKnown ? 0 : null));
  const texts = (value) => windows.map(({ row, isKnown }) => (row ? whole(value(row)) : isKnown ? "0" : words.noData));
  const allErrors = sum(rows, "errors_4xx") + sum(rows, "errors_5xx");
  return figure(key, {
    kind: "bars", zone, widthMs, window, x,
    starts: windows.map(({ start }) => start),
    y: (value) => compact(value, language),
    // Errors are drawn over the calls that they are part of, and 5xx over all errors.
    series: [
      { label: words.requests, tone: "calls", values: numbers((row) => row.calls), shown: texts((row) => row.calls) },
      { label: words.errors4, tone: "warn", values: numbers(errors), shown: texts((row) => row.errors_4xx) },
      { label: words.errors5, tone: "bad", values: numbers((row) => row.errors_5xx), shown: texts((row) => row.errors_5xx) },
    ],
    label: words.chartLabel(title, words.inAll(words.calls(sum(rows, "calls")), whole(allErrors))),
    summary: words.table,
    head: [words.window, words.requests, words.errors4, words.errors5, words.errorShare, words.bytesIn, words.bytesOut],
    rows: windows.toReversed().map(({ start, row, isKnown }) => {
      const name = window(start);
      if (!row) return [name, ...Array(6).fill(isKnown ? "0" : words.noData).with(3, isKnown ? "-" : words.noData)];
      return [
        row.complete ? name : `${name} (${words.counting})`,
        whole(row.calls), whole(row.errors_4xx), whole(row.errors_5xx), percent(errors(row), row.calls),
        size(row.bytes_in), size(row.bytes_out),
      ];
    }),
  });
}

/** A chart of percentiles of latency, or why there is none. */
export function latencyFigure(view, key, answer) {
  const { words, tick } = view;
  const { widths } = answer;
  const { latencyMs: widthMs, latencyCount: count } = WIDTHS[widths];
  const windows = filled(answer.rows, { widthMs, count, since: answer.since, tick });
  if (windows.length === 0) return empty(words.noLatency);
  const { zone, window, x } = clockOf(view, widths);
  // Windows without calls have no latency.
  const shown = (column) => windows.map(({ row }) => (row ? latency(row[column]) : words.noData));
  const values = (column) => windows.map(({ row }) => (row ? Number(row[column]) : null));
  const line = (label, tone, column) => ({ label, tone, values: values(column), shown: shown(column) });
  const newest = windows.findLast(({ row }) => row).row;
  return figure(key, {
    kind: "lines", zone, widthMs, window, x,
    starts: windows.map(({ start }) => start),
    y: (value) => latency(Math.round(value)),
    series: [line("p50", "strong", "p50_us"), line("p95", "middle", "p95_us"), line("p99", "outer", "p99_us")],
    label: words.chartLabel(words.latencyOf, words.latencyLabel(latency(newest.p50_us), latency(newest.p99_us))),
    summary: words.table,
    head: [words.window, "p50", "p95", "p99", words.requests],
    rows: windows.toReversed().filter(({ row }) => row).map(({ start, row }) =>
      [window(start), ...["p50_us", "p95_us", "p99_us"].map((column) => latency(row[column])), whole(row.calls)]),
  });
}

/** The switch between widths of windows. */
export const widthChoice = ({ words }, action, chosen, widths = ["days", "hours"]) =>
  choice(action, words.windowsLabel, Object.fromEntries(widths.map((name) => [name, words.windows[name]])), chosen);

/** The section of a subscription's calls. */
export function trafficSection(view, answer, widths) {
  const { words } = view;
  return section("traffic", words.traffic, widthChoice(view, "windows", widths),
    answer ? callsFigure(view, "calls", words.traffic, answer) : waiting(view),
    widths === "days" && h("p", { class: "soft note" }, words.utcDays));
}

/** A table of the countries that a key was called from, those with most calls first. */
export function countriesTable(view, answer) {
  const { words, language } = view;
  const by = new Map();
  for (const row of answer.rows) {
    const known = by.get(row.country) ?? { calls: 0n, errors: 0n };
    by.set(row.country, { calls: known.calls + BigInt(row.calls), errors: known.errors + BigInt(row.errors) });
  }
  const all = sum(answer.rows, "calls");
  const rows = [...by].toSorted(([a, left], [b, right]) =>
    left.calls === right.calls ? (a < b ? -1 : 1) : left.calls > right.calls ? -1 : 1);
  if (rows.length === 0) return empty(words.noCountries);
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": words.countries },
    h("table", { class: "countries" },
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, words.countryName), h("th", { scope: "col", class: "number" }, words.requests),
        h("th", { scope: "col", class: "number" }, words.shareOf), h("th", { scope: "col", class: "number" }, words.errors))),
      h("tbody", {}, rows.map(([code, { calls, errors }]) =>
        h("tr", { "data-key": code },
          h("th", { scope: "row" }, foreign(country(code, language, words.unknownCountry, words.otherCountries)),
            h("span", { class: "bar", share: `${Number((calls * 1_000n) / all) / 10}%` })),
          h("td", { class: "number" }, whole(calls)),
          h("td", { class: "number" }, percent(calls, all)),
          h("td", { class: "number" }, whole(errors)))))));
}
