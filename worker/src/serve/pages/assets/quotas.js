// The quotas of a subscription: how much is used and left, when they reset, and what is to be expected.

import { h } from "./dom.js";
import { costText, day, moment, money, percent, permille, roundCost, roundPercent, time } from "./format.js";
import { badge, empty, exactBytes, quantity, section } from "./parts.js";

const PERIODS = ["month", "billing", "day", "hour", "minute", "second"];
const METRICS = ["calls", "units", "bytes", "bytes_in", "bytes_out", "cost"];
/** The used part from which on a quota is shown as nearly used up, in thousandths. */
const NEARLY = 800;

/** Quotas in an order that doesn't change with use. */
export const inOrder = (quotas) =>
  quotas.toSorted((a, b) =>
    PERIODS.indexOf(a.period) - PERIODS.indexOf(b.period) || METRICS.indexOf(a.metric) - METRICS.indexOf(b.metric));

/** The used part of a quota in words: 81.2 %, 1,877 left; 100 %, 1 over. */
export function shareWords(view, { metric, used, limit }, currency) {
  const { words } = view;
  const rest = BigInt(limit) - BigInt(used);
  const text = (number) => quantity(view, metric, metric === "cost" ? roundCost(number, currency, true) : number, currency);
  if (rest === 0n) return [percent(used, limit), words.share.none];
  return [percent(used, limit), rest > 0n ? words.share.left(text(rest)) : words.share.over(text(-rest))];
}

/** What a quota's forecast says, as a tone and sentences. */
export function outlook(view, quota, forecast, isSameDay) {
  const { words, zone, language, now } = view;
  const { limit, used, hard } = quota;
  if (BigInt(used) >= BigInt(limit)) return ["bad", hard ? words.usedUpHard : words.usedUpSoft];
  if (!["day", "month", "billing"].includes(quota.period)) return ["", ""];
  if (!forecast) return ["", words.noForecast];
  const { expected, runs_out_at: runsOutAt } = forecast;
  const over = BigInt(expected) - BigInt(limit);
  if (runsOutAt === null && over <= 0n) return ["", words.lasts(roundPercent(expected, limit), quota.period)];
  const sentences = [];
  if (runsOutAt !== null) {
    sentences.push(isSameDay ? words.runsOutToday(time(runsOutAt, zone)) : words.runsOut(moment(runsOutAt, zone, language, now)));
  }
  if (over > 0n) sentences.push(words.over(roundPercent(over, limit), quota.period));
  return ["warn", sentences.join(" ")];
}

const part = (number, all) => Math.min(permille(number, all) ?? 1_000, 1_000) / 10;

function tile(view, quota, forecast, currency) {
  const { words, zone, language, now } = view;
  const { metric, period, limit, used, hard, resets_at: resetsAt } = quota;
  const name = words.quotaName(metric, period);
  const [share, rest] = shareWords(view, quota, currency);
  const isSameDay = (at) => day(at, zone, language) === day(now, zone, language);
  const [tone, sentence] = outlook(view, quota, forecast, forecast?.runs_out_at ? isSameDay(forecast.runs_out_at) : false);
  const isNear = (permille(used, limit) ?? 1_000) >= NEARLY;
  const fill = tone === "bad" ? "bad" : isNear || tone === "warn" ? "warn" : "";
  const expected = forecast ? part(forecast.expected, limit) : 0;
  const exact = metric === "cost" ? money(costText(used, currency), currency, language)
    : [used, limit].map((number) => exactBytes(view, metric, number)).filter(Boolean).join(" / ");
  const bound = (number) => quantity(view, metric, metric === "cost" ? roundCost(number, currency, false) : number, currency);
  const range = forecast && words.range(bound(forecast.low), bound(forecast.high));
  return h("li", { class: `quota ${fill}`, "data-key": `${metric}/${period}` },
    h("h3", {}, name, " ", hard ? badge("", words.hard, words.hardWhy) : badge("", words.soft, words.softWhy)),
    h("p", { class: "big" }, h("strong", {}, share), " ", h("span", {}, rest)),
    h("div", {
      class: "meter", role: "meter", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": "100",
      "aria-valuenow": String(part(used, limit)), "aria-valuetext": `${share}, ${rest}`,
    },
      h("span", { class: "expected", share: `${expected}%` }),
      h("span", { class: "used", share: `${part(used, limit)}%` })),
    h("dl", {},
      h("dt", {}, words.used),
      h("dd", { title: exact || null }, words.usedOf(withoutUnit(view, quota, currency), quantity(view, metric, limit, currency))),
      h("dt", {}, words.resets),
      h("dd", {}, isSameDay(resetsAt) ? time(resetsAt, zone, ["minute", "second"].includes(period)) : moment(resetsAt, zone, language, now),
        " ", h("span", { class: "soft" }, view.until(resetsAt)))),
    h("p", { class: `outlook ${tone}`, title: range || null }, sentence));
}

/** The used quantity before "of" and the limit: without a unit where the limit has the same. */
function withoutUnit(view, { metric, used }, currency) {
  const text = quantity(view, metric, metric === "cost" ? roundCost(used, currency, false) : used, currency);
  return metric === "calls" || metric === "units" ? text.replace(/\p{L}+$/u, "").trim() : text;
}

/** The section of quotas. */
export function quotasSection(view, { quotas, forecasts, currency }) {
  const { words } = view;
  const forecastOf = ({ metric, period, period_start: start }) =>
    forecasts.find((row) => row.metric === metric && row.period === period && Date.parse(row.period_start) === Date.parse(start));
  return section("quotas", words.quotas, null,
    quotas.length === 0 ? empty(words.noQuotas)
      : h("ul", { class: "tiles" },
          inOrder(quotas).map((quota) => {
            const forecast = forecastOf(quota);
            return tile(view, quota, forecast, forecast?.currency ?? currency);
          })));
}

/** The section of notices: thresholds that were reached, the newest first. */
export function noticesSection(view, notices) {
  const { words, zone, language, now } = view;
  const told = notices.filter(({ highest }) => highest).toSorted((a, b) => Number(BigInt(b.seq) - BigInt(a.seq)));
  return section("notices", words.notices, null,
    told.length === 0 ? empty(words.noNotices)
      : h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": words.notices },
          h("table", {},
            h("thead", {}, h("tr", {},
              h("th", { scope: "col" }, words.at), h("th", { scope: "col" }, words.quota),
              h("th", { scope: "col", class: "number" }, words.used))),
            h("tbody", {}, told.map((row) =>
              h("tr", { "data-key": String(row.seq) },
                h("td", {}, moment(row.at, zone, language, now)),
                h("td", {}, words.noticeText(row.percent, words.quotaName(row.metric, row.period))),
                h("td", { class: "wide number" },
                  words.usedOf(withoutUnit(view, row, row.currency), quantity(view, row.metric, row.limit, row.currency)))))))));
}
