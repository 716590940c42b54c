// The evidence of one incident, for people of security: why the key is suspected, what was taken, and what to look up.

import { figure } from "./chart.js";
import { foreign, h } from "./dom.js";
import { amount, compact, country, day, moment, size, time, whole } from "./format.js";
import { TONES, measure } from "./incidents.js";
import { badge } from "./parts.js";

const STEP_MS = 300_000;
/** The largest ratio that is shown as a number. */
const LARGEST_RATIO = 9_999;

const list = (rows) => h("ul", { class: "plain" }, rows.map((row) => h("li", {}, row)));
const facts = (pairs) =>
  h("dl", { class: "pairs" }, pairs.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const block = (title, note, ...children) =>
  h("div", { class: "block" }, h("h3", {}, title), note && h("p", { class: "soft small" }, note), children);

function valueText({ words, language }, kind, value) {
  if (kind !== "country") return foreign(value, { class: "mono" });
  const name = country(value, language, words.unknownCountry, words.otherCountries);
  return foreign(name === value || !/^[A-Z]{2}$/.test(value) ? name : `${name} (${value})`);
}

/** Formats a share from 0 to 1: 99.8 %. All is said of all only. */
function shareText(share) {
  const percent = Math.min(Math.max(Number(share), 0), 1) * 100;
  if (percent > 0 && percent < 0.05) return "<0.1\u00a0%";
  if (percent >= 99.95 && percent < 100) return ">99.9\u00a0%";
  return `${percent.toFixed(1).replace(/\.0$/, "")}\u00a0%`;
}

function signalItem(view, signal, usual) {
  const { words } = view;
  const { signal: name, family, ratio, weighted_bits: bits, values, window_start: start, window_s: seconds } = signal;
  const kind = name === "fan_out" ? "network" : name;
  const own = usual.filter((row) => row.kind === kind);
  const end = Date.parse(start) + Number(seconds) * 1_000;
  const times = ratio === null || Number(ratio) < 1.05 ? null
    : words.ratio(Number(ratio) > LARGEST_RATIO ? `>${whole(LARGEST_RATIO)}` : amount(ratio));
  return h("li", { class: "signal" },
    h("p", {},
      times && [h("b", { class: "ratio" }, times), " "],
      h("strong", {}, Object.hasOwn(words.signals, name) ? words.signals[name] : foreign(name)), " ",
      badge("", words.families[family] ?? family)),
    h("p", {}, measure(view, signal), " ",
      h("span", { class: "soft" }, moment(start, "UTC", view.language, view.now), " - ", time(end, "UTC"))),
    h("p", { class: "soft" },
      family === "hard" ? words.fact : Number(bits) >= 0.05 ? words.counts(Number(bits).toFixed(1)) : words.countsNothing),
    values.length > 0 && list(values.map((value) =>
      [valueText(view, value.kind, value.value), " ", value.calls !== 0 && h("b", {}, words.calls(value.calls)), value.new && [" ", badge("warn", words.isNew)]])),
    own.length > 0 && h("p", { class: "soft" }, words.usually, ": ",
      own.map((row, place) => [place > 0 && ", ", valueText(view, row.kind, row.value), " ", shareText(row.share)])));
}

function trafficFigure(view, { traffic }) {
  const { words, language, now } = view;
  if (traffic.length === 0) return null;
  const byStart = new Map(traffic.map((row) => [Date.parse(row.start), row]));
  const [first, last] = [Math.min(...byStart.keys()), Math.max(...byStart.keys())];
  const starts = Array.from({ length: (last - first) / STEP_MS + 1 }, (_, place) => first + place * STEP_MS);
  // Steps without calls are left out of the row, and nothing is said of what was expected in them.
  const rows = starts.map((start) => byStart.get(start) ?? { calls: 0, expected: null });
  const window = (start) => moment(start, "UTC", language, now);
  const expected = rows.map((row) => (row.expected === null ? words.noData : amount(row.expected)));
  return figure("evidence", {
    kind: "bars", zone: "UTC", widthMs: STEP_MS, starts, window,
    x: (start) => (time(start, "UTC") === "00:00" ? day(start, "UTC", language, now) : time(start, "UTC")),
    y: (value) => compact(value, language),
    series: [
      { label: words.requests, tone: "calls", values: rows.map((row) => Number(row.calls)), shown: rows.map((row) => whole(row.calls)) },
      { label: words.expectedOf, tone: "outer", values: rows.map((row) => row.expected), shown: expected },
    ],
    label: words.chartLabel(words.traffic6h, ""), summary: words.table,
    head: [words.window, words.requests, words.expectedOf],
    rows: starts.map((start, place) => [window(start), whole(rows[place].calls), expected[place]]).toReversed(),
  });
}

/** The evidence of an incident. */
export function evidence(view, incident) {
  const { words, language, now } = view;
  const { evidence: found, signals, state, level } = incident;
  const instant = (at) => moment(at, "UTC", language, now);
  const counted = (rows) => list(rows.map((row) => [foreign(row.value, { class: "mono" }), " ", h("b", {}, words.calls(row.calls))]));
  const { taken } = found;
  const isOpen = state === "open";
  return h("div", { class: "evidence", "data-key": incident.incident_id },
    h("header", {},
      badge(isOpen ? TONES[level] : "", words.severity[level] ?? level), badge("", words.incidentState[state] ?? state),
      h("h2", { class: "mono", id: "of-evidence", tabindex: "-1" }, foreign(incident.key_id))),
    incident.platform_event && h("p", { class: "callout note" }, words.platform),
    facts([
      [words.score, `${whole(incident.score)}\u00a0%`],
      [words.opened, instant(incident.opened_at)],
      [words.lastSignal, instant(incident.last_signal_at)],
      incident.ended_at !== null && [words.ended, instant(incident.ended_at)],
      [words.customer, foreign(incident.customer ?? words.unknown)],
      [words.subscriptionOf, incident.subscription === null ? words.unknown
        : h("a", { href: `/me#subscription=${encodeURIComponent(incident.subscription)}` }, foreign(incident.subscription))],
      [words.plan, foreign(incident.plan ?? words.unknown)],
      [words.callsOf, words.calls(found.calls)],
      [words.knownSince, instant(found.known_since)],
      [words.knownCalls, words.calls(found.known_calls)],
      [words.reopenings, words.times(Number(incident.reopenings))],
      [words.incidentId, h("span", { class: "mono foreign" }, incident.incident_id)],
      [words.version, whole(incident.detector_version)],
      [words.config, h("span", { class: "mono" }, found.config)],
    ]),
    isOpen && block(words.whatToDo, null, h("ol", {}, words.toDo.map((step) => h("li", {}, step)))),
    block(words.traffic6h, null, trafficFigure(view, found)),
    block(words.why, words.whyNote, h("ul", {}, signals.map((signal) => signalItem(view, signal, found.usual)))),
    block(words.taken, words.takenNote,
      facts([
        [words.fromNew, words.calls(taken.from_new)],
        [words.fromUsual, words.calls(taken.usual)],
        [words.bytesTaken, size(taken.bytes_out)],
        [words.routes, words.manyRoutes(taken.routes)],
        taken.methods.length > 0 && [words.methods, counted(taken.methods)],
        taken.statuses.length > 0 && [words.statuses, counted(taken.statuses)],
        taken.top_routes.length > 0 && [words.topRoutes, counted(taken.top_routes)],
      ])),
    found.other_keys.length > 0 && block(words.others, words.othersNote,
      list(found.other_keys.map((network) => [
        h("b", { class: "mono" }, foreign(network.network)), ": ",
        words.otherKeys(whole(network.keys), whole(network.customers), whole(network.usual_keys)),
        list(network.named.map((named) => [foreign(named.key_id, { class: "mono" }), " ", named.customer !== null && foreign(named.customer)])),
      ]))),
    found.earlier.length > 0 && block(words.earlierOf, null,
      list(found.earlier.map((row) => [
        h("button", { type: "button", class: "link", "data-do": "incident", "data-value": row.incident_id }, instant(row.opened_at)), " ",
        badge("", words.severity[row.level] ?? row.level), " ", badge("", words.incidentState[row.state] ?? row.state),
      ]))),
    found.samples.length > 0 && block(words.samples, words.samplesNote,
      h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": words.samples },
        h("table", {},
          h("thead", {}, h("tr", {}, [words.at, words.client, words.status, words.record].map((text) => h("th", { scope: "col" }, text)))),
          h("tbody", {}, found.samples.map((row) => h("tr", {},
            h("td", {}, instant(row.at)),
            h("td", {}, row.client === null ? words.unknown : foreign(row.client, { class: "mono" })),
            h("td", {}, String(row.status)),
            h("td", {}, foreign(`${row.source} / ${row.partition} / ${row.offset} / ${row.index}`, { class: "mono" })))))))));
}
