// The bills of a subscription: the running one with its lines, tier by tier, what is expected, and the former ones.

import { foreign, h } from "./dom.js";
import { costText, decimal, money, roundCost, sizeUnit, span } from "./format.js";
import { BYTES, badge, empty, exactBytes, quantity, section } from "./parts.js";

const at = (text) => Date.parse(text);

/** Returns the bill of the period in which an instant is, else the newest; null without bills. */
export function runningBill(bills, now) {
  const newestFirst = bills.toSorted((a, b) => at(b.period_start) - at(a.period_start));
  const isRunning = (bill) => at(bill.period_start) <= now && now < at(bill.period_end);
  return newestFirst.find(isRunning) ?? newestFirst[0] ?? null;
}

/** Names an item of a bill; items whose name begins with a colon have one more. */
function itemName({ words }, item) {
  if (Object.hasOwn(words.items, item)) return words.items[item];
  return foreign(item.startsWith("::") ? item.slice(1) : item);
}

/** Says what a unit price is for: 0.10 EUR per GiB. */
function priceWords({ words, language }, { unit, metric, model, currency }, unitPrice) {
  const price = money(unitPrice, currency, language);
  if (model === "package") return words.perPackage(price);
  if (unit === null || metric === null) return price;
  const of = BYTES.has(metric) && BigInt(unit) > 1n ? sizeUnit(unit) : null;
  const many = metric === "calls" ? words.calls : metric === "units" ? words.usedUnits : words.bytes;
  return words.perUnit(price, of ?? (BigInt(unit) === 1n ? words.each[metric] : many(unit)));
}

function state(words, { final, complete }) {
  if (final) return badge("good", words.final, words.finalWhy);
  return complete ? badge("", words.closing, words.closingWhy) : badge("", words.draft, words.draftWhy);
}

// Displaying a row as a grid, as narrow pages do, takes its role away in some browsers: so all roles are named.
const cell = (name, ...children) => h("td", { class: name, role: "cell" }, children);
const column = (name, text) => h("th", { class: name, scope: "col", role: "columnheader" }, text);

function lines(view, charge) {
  const { metric, unit, tiers, currency, item } = charge;
  const isItem = tiers.length > 0 || (!item.startsWith(":") || item.startsWith("::"));
  const exact = isItem ? exactBytes(view, metric, charge.quantity) : null;
  const isOne = tiers.length === 1;
  const plans = new Set(tiers.map(({ plan }) => plan));
  const head = h("tr", { role: "row", "data-key": item },
    h("th", { scope: "row", role: "rowheader", class: "item" }, itemName(view, item)),
    cell("quantity number", isItem ? quantity(view, metric, charge.quantity, currency, unit) : "",
      exact && h("small", {}, exact)),
    cell("price number", isOne ? priceWords(view, charge, tiers[0].unit_price) : ""),
    cell("exact number", decimal(charge.exact)),
    cell("amount number", decimal(charge.amount)));
  const parts = isOne ? [] : tiers.map((tier, place) =>
    h("tr", { role: "row", class: "tier", "data-key": `${item}/${place}` },
      h("th", { scope: "row", role: "rowheader", class: "item" }, view.words.tier(tier.tier),
        plans.size > 1 && tier.plan !== null ? [", ", view.words.ofPlan, " ", foreign(tier.plan)] : null),
      cell("quantity number", quantity(view, metric, tier.quantity, currency, unit)),
      cell("price number", priceWords(view, charge, tier.unit_price)),
      cell("exact number", decimal(tier.exact)),
      cell("amount number", "")));
  return [head, ...parts];
}

/** Fees first, then items by name, then bounds, as a bill is read. */
const PLACES = { ":base_fee": 0, ":minimum": 2, ":maximum": 3 };
const placeOf = ({ item }) => PLACES[item] ?? 1;

function linesTable(view, bill, charges, adjustments) {
  const { words, zone, language, now } = view;
  const own = charges
    .filter((charge) => at(charge.period_start) === at(bill.period_start))
    .toSorted((a, b) => placeOf(a) - placeOf(b) || (a.item < b.item ? -1 : 1));
  const due = adjustments.filter((row) => at(row.due_with) === at(bill.period_start));
  // The sum of a bill has those, too, whose rows are no longer kept.
  const isAdjusted = bill.adjustments !== null && /[1-9]/.test(bill.adjustments);
  return h("table", { class: "lines", role: "table" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
      column("item", words.item), column("quantity number", words.quantity), column("price number", words.price),
      column("exact number", words.exact), column("amount number", words.amount))),
    h("tbody", { role: "rowgroup" },
      own.map((charge) => lines(view, charge)),
      isAdjusted && h("tr", { role: "row", "data-key": "adjustments" },
        h("th", { scope: "row", role: "rowheader", class: "item" }, words.adjustmentsOf),
        cell("quantity"), cell("price"), cell("exact"), cell("amount number", decimal(bill.adjustments))),
      due.map((row) => h("tr", { role: "row", class: "tier", "data-key": `adjustment/${row.seq}` },
        h("th", { scope: "row", role: "rowheader", class: "item" }, itemName(view, row.item), " ",
          h("span", { class: "soft" }, words.adjustmentOf(view.periodOf(row.period_start)))),
        cell("quantity"), cell("price"), cell("exact number", decimal(row.amount)), cell("amount")))),
    h("tfoot", { role: "rowgroup" },
      h("tr", { role: "row" },
        h("th", { scope: "row", role: "rowheader", class: "item" }, words.total,
          h("small", {}, span(bill.period_start, bill.period_end, zone, language, now))),
        cell("quantity"), cell("price"), cell("exact"),
        cell("amount number", bill.total === null ? "-" : money(bill.total, bill.currency, language)))));
}

/** The section of one bill. */
export function billSection(view, { bill, charges, adjustments, forecasts }) {
  const { words, zone, language, now } = view;
  if (!bill) return section("bill", words.bill, null, empty(words.noBill));
  const period = span(bill.period_start, bill.period_end, zone, language, now);
  const forecast = forecasts.find((row) =>
    row.period === "billing" && row.metric === "cost" && at(row.period_start) === at(bill.period_start));
  const isRunning = !bill.complete && !bill.final;
  const cost = (number) => money(costText(roundCost(number, forecast.currency, false), forecast.currency), forecast.currency, language);
  return section("bill", words.billOf(period), state(words, bill),
    bill.fault !== null
      ? h("p", { class: "fault" }, h("strong", {}, words.fault), " ", foreign(bill.fault))
      : h("dl", { class: "sums" },
          h("div", {}, h("dt", {}, isRunning ? words.soFar : words.total),
            h("dd", {}, money(bill.total, bill.currency, language))),
          forecast?.expected_amount && isRunning
            ? h("div", {}, h("dt", {}, words.expectedBill),
                h("dd", {}, money(forecast.expected_amount, forecast.currency, language),
                  h("small", {}, words.expectedRange(cost(forecast.low), cost(forecast.high)))))
            : null),
    linesTable(view, bill, charges, adjustments),
    h("p", { class: "soft note" }, words.sumNote));
}

/** The section of all bills, the newest first; one of them is shown. */
export function billsSection(view, bills, shown) {
  const { words, zone, language, now } = view;
  if (bills.length === 0) return null;
  return section("bills", words.bills, null,
    h("table", { class: "pick" },
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, words.period), h("th", { scope: "col" }, words.state),
        h("th", { scope: "col", class: "number" }, words.total))),
      h("tbody", {}, bills.toSorted((a, b) => at(b.period_start) - at(a.period_start)).map((bill) => {
        const period = span(bill.period_start, bill.period_end, zone, language, now);
        const isShown = at(bill.period_start) === at(shown.period_start);
        return h("tr", { "data-key": bill.period_start, class: isShown ? "chosen" : "" },
          h("td", {},
            h("button", {
              type: "button", class: "link", "data-do": "show-bill", "data-value": bill.period_start,
              "aria-pressed": String(isShown), "aria-label": words.showBill(period),
            }, period)),
          h("td", {}, state(words, bill)),
          h("td", { class: "number" }, bill.total === null ? badge("bad", "-", words.fault) : money(bill.total, bill.currency, language)));
      }))));
}
