// Parts that several sections of a page have.

import { h } from "./dom.js";
import { costText, money, size, sizeIn, sizeUnit, whole } from "./format.js";

/** Rows have this number for it and for all that is more. */
const MOST = 2n ** 64n - 1n;

export const BYTES = new Set(["bytes", "bytes_in", "bytes_out"]);

/** A section with its heading; `more` stands beside the heading. */
export const section = (name, title, more, ...children) =>
  h("section", { class: `card ${name}`, "data-key": name, "aria-labelledby": `of-${name}` },
    h("header", {}, h("h2", { id: `of-${name}` }, title), more),
    children);

export const empty = (text) => h("p", { class: "empty" }, text);

/** The place of a chart or a list that isn't there yet. */
export const waiting = ({ words }) => h("p", { class: "waiting" }, words.waiting);

export const badge = (tone, text, title = null) => h("span", { class: `badge ${tone}`, title }, text);

/** Buttons of which one is chosen. */
export const choice = (action, label, options, chosen) =>
  h("div", { class: "choice", role: "group", "aria-label": label },
    Object.entries(options).map(([value, text]) =>
      h("button", { type: "button", "data-do": action, "data-value": value, "aria-pressed": String(value === chosen) }, text)));

/** Formats a quantity of a metric with its unit: 8,123 calls, 1.8 GiB, 49.90 EUR. */
export function quantity({ words, language }, metric, number, currency = null, unit = null) {
  const least = BigInt(number) === MOST ? "\u2265\u00a0" : "";
  if (metric === "calls") return least + words.calls(number);
  if (metric === "units") return least + words.usedUnits(number);
  if (metric === "cost") return least + money(costText(number, currency), currency, language);
  if (!BYTES.has(metric)) return least + whole(number);
  return least + (unit !== null && BigInt(unit) > 1n && sizeUnit(unit) ? sizeIn(number, unit) : size(number, unit));
}

/** Formats a quantity of bytes exactly; null of other metrics, and of few bytes, which `quantity` shows exactly. */
export const exactBytes = ({ words }, metric, number) =>
  BYTES.has(metric) && BigInt(number) >= 1_000n ? words.bytes(number) : null;
