// The choice of a subscription: a search on the server, as there can be millions.

import { foreign, h } from "./dom.js";
import { section } from "./parts.js";

/** Subscriptions of one answer. */
export const PAGE = 20;

/** The path that asks for subscriptions. */
export function searchPath(text, after = null) {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (text) query.set("q", text);
  if (after !== null) query.set("after", after);
  return `/v1/subscriptions?${query}`;
}

/** The section in which a subscription is chosen. `found` has rows and the id of the next; null while it is asked for. */
export function chooserSection({ words }, { text, found, isSearched, chosen }) {
  const rows = found?.rows ?? [];
  return section("chooser", words.chooseSubscription, null,
    isSearched && h("div", { class: "search" },
      h("label", { for: "search" }, words.search),
      h("input", { id: "search", type: "search", autocomplete: "off", spellcheck: "false", maxlength: "64", value: text })),
    h("p", { class: "soft", role: "status" },
      !found ? words.waiting
        : rows.length === 0 ? (text ? words.foundNothing : words.noSubscriptions)
          : found.next === null ? words.found(rows.length) : words.foundMore(rows.length)),
    h("ul", { class: "found" }, rows.map((row) =>
      h("li", { "data-key": row.subscription },
        h("button", {
          type: "button", "data-do": "choose", "data-value": row.subscription,
          "aria-current": row.subscription === chosen ? "true" : null,
        },
          h("strong", {}, foreign(row.subscription)),
          h("span", { class: "soft" },
            row.customer !== null ? foreign(row.customer) : null,
            row.plan_name ?? row.plan ? [" · ", foreign(row.plan_name ?? row.plan)] : null))))),
    found && found.next !== null && h("button", { type: "button", "data-do": "more-found" }, words.more));
}
