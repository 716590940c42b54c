// Numbers, money, sizes and times as people read them. All functions are pure, and know no page.
//
// Quantities are whole numbers of up to 2^64 - 1, which JavaScript's numbers don't keep beyond 2^53. So `parse` makes a
// BigInt of those, and all functions here take both. Money and prices are decimal texts, which are never made numbers.

/** Stands in for a whole number that a number would round. No answer has an object with such a member. */
const EXACT = "\0exact";

// Browsers that tell a reviver the source of a number keep it; others get it as a text that was marked before.
const tellsSource = (() => {
  let told = false;
  JSON.parse("1", (_, value, context) => {
    told = context?.source === "1";
    return value;
  });
  return told;
})();

const isWhole = (text) => /^-?\d+$/.test(text);

/** Parses JSON; whole numbers beyond 2^53 become BigInts. */
export function parse(text, useSource = tellsSource) {
  if (useSource) {
    return JSON.parse(text, (_, value, context) =>
      typeof value === "number" && !Number.isSafeInteger(value) && isWhole(context.source) ? BigInt(context.source) : value,
    );
  }
  // Texts are matched first, so that digits within them stay.
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (token) =>
    isWhole(token) && !Number.isSafeInteger(Number(token)) ? `{"\\u0000exact":"${token}"}` : token,
  );
  return JSON.parse(marked, (_, value) =>
    value !== null && typeof value === "object" && Object.hasOwn(value, EXACT) ? BigInt(value[EXACT]) : value,
  );
}

/** Groups the digits of a whole number: 1,234,567. */
export const whole = (number) => grouped(String(number));

const grouped = (digits) => digits.replace(/^-/, "\u2212").replace(/\B(?=(\d{3})+$)/g, ",");

/** Groups the digits of a decimal text before its point, and keeps all behind it. */
export function decimal(text) {
  const [before, behind] = text.split(".");
  return behind === undefined ? grouped(before) : `${grouped(before)}.${behind}`;
}

/** Formats a decimal text with its currency: 1,234.57 EUR, 1,235원. */
export function money(text, currency, language) {
  if (currency === "KRW" && language === "ko") return `${decimal(text)}원`;
  return currency ? `${decimal(text)}\u00a0${currency}` : decimal(text);
}

/** Returns how many digits a currency has behind the point; 2 if it isn't known. */
export function currencyDigits(currency) {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
  } catch {
    return 2;
  }
}

/** Returns ten-thousandths of a currency's unit as a decimal text with the currency's digits, and more if they aren't 0. */
export function costText(tenThousandths, currency) {
  const number = BigInt(tenThousandths);
  const digits = currency ? currencyDigits(currency) : 2;
  const behind = String(number % 10_000n).padStart(4, "0");
  const needed = Math.max(behind.replace(/0+$/, "").length, digits);
  return `${number / 10_000n}${needed > 0 ? `.${behind.padEnd(needed, "0").slice(0, needed)}` : ""}`;
}

/**
 * Rounds ten-thousandths of a currency's unit to the currency's digits: up or down, so that what is left is never shown as
 * nothing, and what is used never as all.
 */
export function roundCost(tenThousandths, currency, isUp) {
  const step = 10n ** BigInt(Math.max(0, 4 - (currency ? currencyDigits(currency) : 2)));
  const number = BigInt(tenThousandths);
  return ((isUp ? number + step - 1n : number) / step) * step;
}

const thousandths = (part, all) => (BigInt(all) === 0n ? null : (BigInt(part) * 1_000n) / BigInt(all));

/** Returns a part of a whole in thousandths, cut, as a number; null of nothing. */
export function permille(part, all) {
  const exact = thousandths(part, all);
  return exact === null ? null : Number(exact);
}

/** Formats a part of a whole in percent, cut to a tenth: 81.2 %. A part that isn't 0 is never 0. Of nothing it is "-". */
export function percent(part, all) {
  const exact = thousandths(part, all);
  if (exact === null) return "-";
  if (exact === 0n && BigInt(part) > 0n) return "<0.1\u00a0%";
  return `${whole(exact / 10n)}${exact % 10n === 0n ? "" : `.${exact % 10n}`}\u00a0%`;
}

/** Formats a part of a whole in whole percent, rounded: 14 %. A part that isn't 0 is never 0. Of nothing it is "-". */
export function roundPercent(part, all) {
  const exact = thousandths(part, all);
  if (exact !== null && exact < 5n && BigInt(part) > 0n) return "<1\u00a0%";
  return exact === null ? "-" : `${whole((exact + 5n) / 10n)}\u00a0%`;
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const DECIMAL = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];

/** Returns the name of a number of bytes that a price is for: GiB of 1,073,741,824, GB of 1,000,000,000; else null. */
export function sizeUnit(unit) {
  for (const [names, base] of [[BINARY, 1_024n], [DECIMAL, 1_000n]]) {
    const at = names.findIndex((_, power) => base ** BigInt(power) === BigInt(unit));
    if (at >= 0) return names[at];
  }
  return null;
}

/** Divides whole numbers to a decimal text of at most so many places, half up, without zeros at the end. */
export function quotient(number, by, places) {
  const [scale, of, divisor] = [10n ** BigInt(places), BigInt(number), BigInt(by)];
  const size = of < 0n ? -of : of;
  const scaled = (size * scale * 2n + divisor) / (divisor * 2n);
  const behind = String(scaled % scale).padStart(places, "0").replace(/0+$/, "");
  return `${of < 0n && scaled > 0n ? "-" : ""}${scaled / scale}${behind && `.${behind}`}`;
}

/** Formats a number of bytes in a unit such as GiB with at most three places. */
export function sizeIn(bytes, unit) {
  return `${decimal(quotient(bytes, unit, 3))}\u00a0${sizeUnit(unit)}`;
}

/** Formats a number of bytes in the largest unit that it reaches; `like` is a unit of the family that is meant, if any. */
export function size(bytes, like = null) {
  const number = BigInt(bytes);
  const isDecimal = like !== null && BigInt(like) > 1n && DECIMAL.includes(sizeUnit(like));
  const [names, base] = isDecimal ? [DECIMAL, 1_000n] : [BINARY, 1_024n];
  let power = 0;
  while (power + 1 < names.length && number >= base ** BigInt(power + 1)) power += 1;
  const places = number >= 10n * base ** BigInt(power) || power === 0 ? 0 : 1;
  return `${decimal(quotient(number, base ** BigInt(power), places))}\u00a0${names[power]}`;
}

/** Formats microseconds: 850 µs, 12.3 ms, 1.24 s. */
export function latency(us) {
  const number = Number(us);
  const short = (value) => (value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : whole(Math.round(value)));
  if (number < 1_000) return `${whole(number)}\u00a0µs`;
  return number < 999_500 ? `${short(number / 1_000)}\u00a0ms` : `${short(number / 1_000_000)}\u00a0s`;
}

/** Formats a number for an axis: 1.2K, or 12만 in Korean. */
export const compact = (number, language) =>
  new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 }).format(number);

/** Formats a number that needn't be whole, such as what was expected: 0.4, 120, 4,812. */
export function amount(number) {
  const value = Number(number);
  if (!Number.isFinite(value)) return "?";
  if (value > 0 && value < 0.05) return "<0.1";
  return value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : whole(Math.round(value));
}

// Formatters are costly to make.
const clocks = new Map();

function clock(zone) {
  let made = clocks.get(zone);
  if (!made) {
    const options = {
      calendar: "gregory", numberingSystem: "latn", hourCycle: "h23",
      year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric",
    };
    try {
      made = { name: zone, format: new Intl.DateTimeFormat("en", { ...options, timeZone: zone }) };
    } catch {
      // A browser may know fewer zones than the server.
      made = { name: "UTC", format: new Intl.DateTimeFormat("en", { ...options, timeZone: "UTC" }) };
    }
    clocks.set(zone, made);
  }
  return made;
}

/** Returns the zone that times are shown in: the one that is asked for, or UTC if the browser doesn't know it. */
export const zoneName = (zone) => clock(zone ?? "UTC").name;

/** Returns year, month, day, hour, minute and second of an instant (RFC 3339 or ms) by the clock of a zone. */
export function local(at, zone) {
  const parts = {};
  const instant = typeof at === "number" ? at : Date.parse(at);
  for (const { type, value } of clock(zone ?? "UTC").format.formatToParts(instant)) parts[type] = Number(value);
  return parts;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");

/** Formats the date of an instant: Oct 23, or 10월 23일; with the year if it isn't that of `now`. */
export function day(at, zone, language, now) {
  const { year, month, day } = local(at, zone);
  const isThisYear = now !== undefined && local(now, zone).year === year;
  if (language === "ko") return `${isThisYear ? "" : `${year}년 `}${month}월 ${day}일`;
  return `${MONTHS[month - 1]} ${day}${isThisYear ? "" : `, ${year}`}`;
}

/** Formats the time of day of an instant: 14:05, or 14:05:09. */
export function time(at, zone, seconds = false) {
  const { hour, minute, second } = local(at, zone);
  return `${two(hour)}:${two(minute)}${seconds ? `:${two(second)}` : ""}`;
}

/** Formats an instant: Oct 23, 14:05, or 10월 23일 14:05. */
export function moment(at, zone, language, now) {
  return `${day(at, zone, language, now)}${language === "ko" ? " " : ", "}${time(at, zone)}`;
}

/** Formats a period from its first to its last day: Mar 15 to Apr 14. `end` is the first instant after it. */
export function span(start, end, zone, language, now) {
  const [first, last] = [day(start, zone, language, now), day(Date.parse(end) - 1, zone, language, now)];
  if (first === last) return first;
  return language === "ko" ? `${first} ~ ${last}` : `${first} to ${last}`;
}

/** Returns a duration in ms as a number and its unit, in the largest unit that it reaches: s, min, h or d. */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  if (seconds < 60) return [seconds, "s"];
  if (seconds < 3_600) return [Math.floor(seconds / 60), "min"];
  return seconds < 48 * 3_600 ? [Math.floor(seconds / 3_600), "h"] : [Math.floor(seconds / 86_400), "d"];
}

/** Returns the name of a country; a code that is none stays as it is. */
export function country(code, language, unknown, other) {
  if (code === "ZZ") return unknown;
  if (code === "XX") return other;
  try {
    return new Intl.DisplayNames([language], { type: "region" }).of(code) ?? code;
  } catch {
    return code;
  }
}
