// Numbers, money and times of the pages: run.sh runs this by `node --test`, with ASSETS as the folder of their modules.

import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";

const assets = (name) => import(pathToFileURL(`${process.env.ASSETS}/${name}`));
const format = await assets("format.js");
const { WIDTHS, filled, firstOf } = await assets("windows.js");
const wordsOf = async (language) => {
  const modules = await Promise.all(["words", "words-security"].map((name) => assets(`${name}-${language}.js`)));
  return Object.fromEntries(modules.map(({ words }, table) => [table, words]));
};
const tables = { en: await wordsOf("en"), ko: await wordsOf("ko") };

// Texts have blanks that don't break; here they are plain.
const plain = (text) => text.replaceAll("\u00a0", " ");
const MOST = 2n ** 64n - 1n;

test("whole numbers beyond 2^53 are parsed exactly, with and without the source of numbers", () => {
  const text = String.raw`{"a":18446744073709551615,"b":[9007199254740991,9007199254740993,-9007199254740993],"c":1.5,"d":1e300,
    "e":"18446744073709551615, \" 18446744073709551615 \\","f":{"18446744073709551615":0},"g":null,"h":-0.25}`;
  const wanted = {
    a: MOST, b: [9007199254740991, 9007199254740993n, -9007199254740993n], c: 1.5, d: 1e300,
    e: '18446744073709551615, " 18446744073709551615 \\', f: { "18446744073709551615": 0 }, g: null, h: -0.25,
  };
  assert.deepEqual(format.parse(text, false), wanted);
  assert.deepEqual(format.parse(text), wanted);
  assert.throws(() => format.parse("<html>", false), SyntaxError);
});

test("a name can't pretend to be a number", () => {
  const name = '{"\\u0000exact":"1"}';
  assert.deepEqual(format.parse(JSON.stringify({ name }), false), { name });
});

test("whole numbers are grouped", () => {
  const shown = [0, 999, 1_000, 1_234_567, MOST, -1_234].map(format.whole);
  assert.deepEqual(shown, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615", "\u22121,234"]);
});

test("decimal texts keep every digit, and never have an exponent", () => {
  const shown = ["0.0008", "1234567.10", "9.1982476514764130115509033203", "-1234.5", "0"].map(format.decimal);
  assert.deepEqual(shown, ["0.0008", "1,234,567.10", "9.1982476514764130115509033203", "\u22121,234.5", "0"]);
});

test("money has its currency, and won in Korean its own sign", () => {
  const shown = [["1234.57", "EUR", "en"], ["1235", "KRW", "en"], ["1235", "KRW", "ko"], ["0.0008", "USD", "ko"], ["1", null, "en"]];
  assert.deepEqual(shown.map((of) => plain(format.money(...of))), ["1,234.57 EUR", "1,235 KRW", "1,235원", "0.0008 USD", "1"]);
});

test("costs have the digits of their currency, and more only where they aren't zero", () => {
  const shown = [[499_000n, "EUR"], [499_050n, "EUR"], [12_340_000, "KRW"], [12_345n, "KWD"], [5n, null], [MOST, "JPY"], [7, "XX"]];
  assert.deepEqual(
    shown.map((of) => format.costText(...of)),
    ["49.90", "49.905", "1234", "1.2345", "0.0005", "1844674407370955.1615", "0.0007"],
  );
});

test("rounded costs never show all as used, and never nothing as left", () => {
  const shown = [[9_999_999n, "EUR"], [12_437_700n, "KRW"], [1n, "EUR"], [10_000n, "EUR"], [1_001n, "KWD"]];
  assert.deepEqual(shown.map(([cost, of]) => format.costText(format.roundCost(cost, of, false), of)),
    ["999.99", "1243", "0.00", "1.00", "0.100"]);
  assert.deepEqual(shown.map(([cost, of]) => format.costText(format.roundCost(cost, of, true), of)),
    ["1000.00", "1244", "0.01", "1.00", "0.101"]);
});

test("percentages are cut: 100 % is all, and 0 % nothing", () => {
  const shown = [[9_999, 10_000], [10_000, 10_000], [10_001, 10_000], [8_123, 10_000], [1, MOST], [0, 5], [0, 0], [5, 0], [MOST, 1]];
  assert.deepEqual(shown.map((of) => plain(format.percent(...of))),
    ["99.9 %", "100 %", "100 %", "81.2 %", "<0.1 %", "0 %", "-", "-", "1,844,674,407,370,955,161,500 %"]);
  assert.equal(plain(format.roundPercent(1_140_000, 8_000_000)), "14 %");
  assert.deepEqual([[1, 0], [1, 1_000], [5, 1_000], [0, 9]].map((of) => plain(format.roundPercent(...of))), ["-", "<1 %", "1 %", "0 %"]);
});

test("sizes follow the unit of a price", () => {
  const size = 98_765_432_109n;
  assert.equal(plain(format.sizeIn(size, 1_073_741_824)), "91.982 GiB");
  assert.equal(plain(format.sizeIn(size, 1_000_000_000)), "98.765 GB");
  assert.equal(plain(format.sizeIn(MOST, 1_000_000_000)), "18,446,744,073.71 GB");
  assert.deepEqual([1, 1_024, 1_000, 2n ** 40n, 10 ** 12, 7].map(format.sizeUnit), ["B", "KiB", "KB", "TiB", "TB", null]);
  const shown = [[0], [1_023], [1_024], [1_536], [6_227_702_579], [MOST], [size, 1_000_000_000], [size, 1]];
  assert.deepEqual(shown.map((of) => plain(format.size(...of))),
    ["0 B", "1,023 B", "1 KiB", "1.5 KiB", "5.8 GiB", "16 EiB", "99 GB", "92 GiB"]);
});

test("quotients are rounded half up, away from zero, without zeros at the end", () => {
  const shown = [[1, 3, 3], [2, 3, 3], [5, 2, 0], [-5, 2, 0], [10, 5, 3], [1, 8, 3], [0, 7, 2], [-1, 1_000, 2]];
  assert.deepEqual(shown.map((of) => format.quotient(...of)), ["0.333", "0.667", "3", "-3", "2", "0.125", "0", "0"]);
});

test("latencies have three digits", () => {
  const shown = [0, 850, 999, 1_000, 12_345, 99_950, 999_499, 999_500, 1_240_000, 100_000_000].map((us) => plain(format.latency(us)));
  assert.deepEqual(shown, ["0 µs", "850 µs", "999 µs", "1.00 ms", "12.3 ms", "100 ms", "999 ms", "1.00 s", "1.24 s", "100 s"]);
});

test("times are shown by the clock of a zone, over changes of summer time", () => {
  const now = Date.parse("2026-10-25T12:00:00Z");
  const berlin = (at) => format.moment(at, "Europe/Berlin", "en", now);
  assert.deepEqual(["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2025-12-31T23:00:00Z"].map(berlin),
    ["Oct 25, 02:30", "Oct 25, 02:30", "Jan 1, 00:00"]);
  assert.equal(format.moment("2025-12-31T22:59:00Z", "Europe/Berlin", "en", now), "Dec 31, 2025, 23:59");
  assert.equal(format.moment("2026-10-24T18:35:00Z", "Asia/Kolkata", "ko", now), "10월 25일 00:05");
  assert.equal(format.time("2026-10-24T18:35:09Z", "Asia/Kolkata", true), "00:05:09");
  assert.equal(format.zoneName("Mars/Olympus"), "UTC");
  assert.equal(format.moment("2026-10-24T18:35:00Z", "Mars/Olympus", "en", now), "Oct 24, 18:35");
});

test("a period is named by its first and its last day", () => {
  const now = Date.parse("2026-03-20T00:00:00Z");
  const of = (start, end, language) => format.span(start, end, "Asia/Seoul", language, now);
  assert.equal(of("2026-03-14T15:00:00Z", "2026-04-14T15:00:00Z", "en"), "Mar 15 to Apr 14");
  assert.equal(of("2026-03-14T15:00:00Z", "2026-04-14T15:00:00Z", "ko"), "3월 15일 ~ 4월 14일");
  assert.equal(of("2026-03-14T15:00:00Z", "2026-03-15T15:00:00Z", "en"), "Mar 15");
});

test("durations have the largest unit that they reach", () => {
  const shown = [-5, 0, 59_999, 60_000, 3_599_999, 3_600_000, 47 * 3_600_000, 48 * 3_600_000].map(format.duration);
  assert.deepEqual(shown, [[0, "s"], [0, "s"], [59, "s"], [1, "min"], [59, "min"], [1, "h"], [47, "h"], [2, "d"]]);
});

test("what was expected needn't be whole", () => {
  assert.deepEqual([0, 0.01, 0.25, 4, 9.96, 119.6, 4812, Number.NaN].map(format.amount),
    ["0", "<0.1", "0.3", "4", "10", "120", "4,812", "?"]);
});

test("countries have names in both languages, and what is none stays", () => {
  const of = (code, language) => format.country(code, language, "unknown", "other");
  assert.deepEqual([of("KR", "en"), of("KR", "ko"), of("ZZ", "en"), of("XX", "en"), of("<b", "en")],
    ["South Korea", "대한민국", "unknown", "other", "<b"]);
});

const HOUR_MS = 3_600_000;
const at = (hours) => new Date(hours * HOUR_MS).toISOString();
const row = (hours) => ({ window_start: at(hours), calls: 1 });
const shownOf = (rows, since, tick, count = 4) =>
  filled(rows, { widthMs: HOUR_MS, count, since, tick }).map(({ start, row, isKnown }) =>
    `${start / HOUR_MS}${row ? "" : isKnown ? "=0" : "=?"}`);

test("a window without a row had no calls if rows since then are whole, else nothing is known", () => {
  assert.deepEqual(shownOf([row(100), row(103)], 101 * HOUR_MS, 103.5 * HOUR_MS), ["100", "101=0", "102=0", "103"]);
  assert.deepEqual(shownOf([row(100), row(103)], 101.5 * HOUR_MS, 103.5 * HOUR_MS), ["100", "101=?", "102=0", "103"]);
  assert.deepEqual(shownOf([row(103)], 0, 103.5 * HOUR_MS), ["100=0", "101=0", "102=0", "103"]);
  assert.deepEqual(shownOf([row(103)], null, 103.5 * HOUR_MS).slice(-2), ["102=?", "103"]);
});

test("a window whose rows may still come isn't shown without one", () => {
  assert.deepEqual(shownOf([row(100)], 0, 102 * HOUR_MS + 119_999, 2), ["99=0", "100"]);
  assert.deepEqual(shownOf([row(100)], 0, 102 * HOUR_MS + 120_000, 2), ["100", "101=0"]);
  assert.deepEqual(shownOf([], 0, 102 * HOUR_MS), []);
  assert.deepEqual(shownOf([row(100)], null, null, 1), ["100"]);
});

test("rows of other windows than those that are shown are left out", () => {
  assert.deepEqual(shownOf([row(1), row(103)], null, 103.5 * HOUR_MS).at(-2), "102=?");
  assert.deepEqual(shownOf([row(80), row(103)], null, 103.5 * HOUR_MS, 40).length, 24);
  assert.deepEqual(shownOf([row(103)], null, 103.5 * HOUR_MS, 40).length, 12);
  assert.equal(firstOf(103.5 * HOUR_MS, HOUR_MS, 3), 101 * HOUR_MS);
  assert.equal(WIDTHS.days.usageMs, 24 * HOUR_MS);
});

/** The names of a table's words, with those of tables in it, and what kind each is. */
function namesOf(words, before = "") {
  return Object.entries(words).flatMap(([name, word]) =>
    word !== null && typeof word === "object" ? namesOf(word, `${before}${name}.`) : [`${before}${name}: ${typeof word}`]);
}

test("both languages have the same words, and none is empty", () => {
  assert.deepEqual(namesOf(tables.en).toSorted(), namesOf(tables.ko).toSorted());
  for (const words of Object.values(tables)) {
    const texts = JSON.stringify(words);
    assert.ok(!texts.includes('""'));
  }
});

test("a page's own words take no other's place", () => {
  const [common, own] = Object.values(tables.en).map(Object.keys);
  assert.deepEqual(own.filter((name) => common.includes(name)), []);
});

test("a number of calls has its form in English", () => {
  assert.deepEqual([1, 2, 1_234_567, MOST].map(tables.en[0].calls),
    ["1 call", "2 calls", "1,234,567 calls", "18,446,744,073,709,551,615 calls"]);
  assert.equal(tables.ko[0].calls(1_234_567), "1,234,567건");
});
