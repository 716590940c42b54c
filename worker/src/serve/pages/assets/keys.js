// The keys of a subscription, and what one of them does.

import { foreign, h } from "./dom.js";
import { moment } from "./format.js";
import { badge, empty, section, waiting } from "./parts.js";
import { callsFigure, countriesTable, latencyFigure, widthChoice } from "./traffic.js";

/** The state of a key; what an action denies is denied whatever the table says. */
function stateBadge({ words }, { state, denied }) {
  const tone = denied || state === "revoked" ? "bad" : state === "active" ? "good" : "warn";
  return badge(tone, denied ? words.denied[denied] : words.keyState[state] ?? state);
}

/** The section of keys: a list, beside it the one that is chosen. */
export function keysSection(view, keys, chosen, widths, answers) {
  const { words, zone, language, now } = view;
  if (!keys) return section("keys", words.keys, null, waiting(view));
  const { rows, isMore } = keys;
  const instant = (at, without) => (at === null ? h("span", { class: "soft" }, without) : moment(at, zone, language, now));
  if (rows.length === 0) return section("keys", words.keys, null, empty(words.noKeys));
  return section("keys", words.keys, null,
    h("div", { class: "split" },
      h("div", {},
        h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": words.keys },
          h("table", { class: "pick" },
            h("thead", {}, h("tr", {},
              h("th", { scope: "col" }, words.key),
              h("th", { scope: "col", class: "number" }, words.lastUsed))),
            h("tbody", {}, rows.map((row) =>
              h("tr", { "data-key": row.key_id, class: row.key_id === chosen ? "chosen" : "" },
                h("td", {},
                  h("button", {
                    type: "button", class: "link mono", "data-do": "key", "data-value": row.key_id,
                    "aria-pressed": String(row.key_id === chosen),
                  }, foreign(row.key_id)),
                  h("small", {}, stateBadge(view, row), " ", words.created, " ", instant(row.created_at, words.unknown))),
                h("td", { class: "number" }, instant(row.last_used_at, words.noData))))))),
        isMore && h("button", { type: "button", "data-do": "more-keys" }, words.more)),
      keyDetail(view, rows.find((row) => row.key_id === chosen), widths, answers)));
}

function keyDetail(view, key, widths, answers) {
  const { words } = view;
  if (!key) return h("div", { class: "detail", "data-key": "none" }, empty(words.pickKey));
  const { usage, latency, geo } = answers;
  return h("div", { class: "detail", "data-key": key.key_id },
    h("header", {}, h("h3", { class: "mono" }, foreign(key.key_id)), widthChoice(view, "key-windows", widths, ["days", "hours", "minutes"])),
    h("div", { class: "pair wide" },
      h("div", {}, h("h4", {}, words.traffic), usage ? callsFigure(view, "key-calls", words.traffic, usage) : waiting(view)),
      h("div", {}, h("h4", {}, words.latencyOf), latency ? latencyFigure(view, "key-latency", latency) : waiting(view))),
    widths === "days" && h("p", { class: "soft note" }, words.utcDays),
    h("div", {}, h("h4", {}, words.countries), geo && countriesTable(view, geo)));
}
