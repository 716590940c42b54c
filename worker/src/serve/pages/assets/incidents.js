// Incidents of a subscription's keys: what was seen, and what their owner is to do.

import { foreign, h } from "./dom.js";
import { amount, moment, whole } from "./format.js";
import { badge, empty, section, waiting } from "./parts.js";

/** How severities are coloured while an incident is open. */
export const TONES = { notice: "", alert: "warn", revoke: "bad" };
/** Incidents that are over and shown at most. */
const SHOWN_OVER = 20;

/** A note at the top of the page while an incident is open. */
export function openNote({ words }, incidents) {
  const open = incidents.filter(({ state, level }) => state === "open" && level !== "notice");
  if (open.length === 0) return null;
  return h("div", { class: "callout", "data-key": "callout" },
    h("strong", {}, words.openIncidents(new Set(open.map(({ key_id: key }) => key)).size)), " ",
    h("button", { type: "button", "data-do": "to-incidents" }, words.toIncidents));
}

/** What a signal saw: 4,812 calls, 120 expected. */
export function measure({ words }, { signal, seen, expected }) {
  const text = (words.seen[signal] ?? words.calls)(seen);
  return expected !== null && Number(expected) > 0 ? `${text}, ${words.expected(amount(expected))}` : text;
}

function incidentCard(view, incident, keys) {
  const { words, zone, language, now } = view;
  const { incident_id: id, key_id: key, state, level, score, signals } = incident;
  const instant = (at) => moment(at, zone, language, now);
  const opened = instant(incident.opened_at);
  const known = keys.find((row) => row.key_id === key);
  const keyState = known?.denied ?? known?.state;
  const isOpen = state === "open";
  return h("li", { class: `incident ${isOpen ? TONES[level] : "over"}`, "data-key": id },
    h("header", {},
      badge(isOpen ? TONES[level] : "", words.severity[level] ?? level),
      badge("", words.incidentState[state] ?? state),
      h("h3", { class: "mono" }, foreign(key)),
      h("span", { class: "soft" }, words.incidentSince(opened, instant(incident.ended_at ?? incident.last_signal_at)))),
    h("p", {}, isOpen ? words.incidentOpen : state === "ended" ? words.incidentEnded : words.incidentWithdrawn,
      " ", isOpen && keyState ? words.keyIs[keyState] : null),
    h("div", { class: "pair" },
      isOpen && h("div", {}, h("h4", {}, words.whatToDo), h("ol", {}, words.steps(opened).map((step) => h("li", {}, step)))),
      h("div", {}, h("h4", {}, words.whatWasSeen),
        h("ul", {}, signals.map((signal) =>
          h("li", {}, Object.hasOwn(words.signals, signal.signal) ? words.signals[signal.signal] : foreign(signal.signal),
            ": ", h("b", {}, measure(view, signal))))),
        h("p", { class: "soft" }, words.probability(whole(score))))));
}

/** The section of incidents: open ones first, then the newest. `incidents` is null before they were fetched. */
export function incidentsSection(view, incidents, keys, isOfAll) {
  const { words } = view;
  if (!incidents) return section("incidents", words.incidents, null, waiting(view));
  const rank = ({ state }) => (state === "open" ? 0 : 1);
  const sorted = incidents.toSorted((a, b) => rank(a) - rank(b) || Date.parse(b.opened_at) - Date.parse(a.opened_at));
  const open = sorted.filter(({ state }) => state === "open");
  const over = sorted.slice(open.length, open.length + SHOWN_OVER);
  return section("incidents", words.incidents, null,
    sorted.length === 0 ? empty(words.noIncidents)
      : h("ul", { class: "incident-list" }, [...open, ...over].map((incident) => incidentCard(view, incident, keys))),
    isOfAll && h("p", { class: "soft note" }, words.ofAllIncidents));
}
