// Windows of time as rows have them: which there are, which had no calls, and of which nothing is known.
//
// A view has rows only of windows with calls. A window without a row had none if the rows since then are whole, which an
// answer's `since` says. Of earlier ones nothing is known: no data isn't zero. The newest windows may still come, so they
// are left out until `LAG_MS` after their end.

/** Windows that are shown at least, also if nothing is known of the first ones: two bars alone say little about time. */
const FEWEST = 12;
/** How long after a window's end its row is surely there, in ms. */
const LAG_MS = 120_000;

const MINUTE_MS = 60_000;

/** The windows that people choose: labels of the API, widths in ms, how many, and whether they are whole days of UTC. */
export const WIDTHS = {
  minutes: { usage: "1m", latency: "5m", usageMs: MINUTE_MS, latencyMs: 5 * MINUTE_MS, usageCount: 60, latencyCount: 72 },
  hours: { usage: "1h", latency: "1h", usageMs: 60 * MINUTE_MS, latencyMs: 60 * MINUTE_MS, usageCount: 72, latencyCount: 72 },
  days: { usage: "1d", latency: "1d", usageMs: 1_440 * MINUTE_MS, latencyMs: 1_440 * MINUTE_MS, usageCount: 31, latencyCount: 31 },
};

/** Returns the start of the first of so many windows up to an instant, in ms. */
export const firstOf = (at, widthMs, count) => (Math.floor(at / widthMs) - count + 1) * widthMs;

/**
 * Returns windows from the first that is known to the newest, or a few before it, with `start` in ms, the `row` or null, and `isKnown`: without a
 * row it then had no calls.
 */
export function filled(rows, { widthMs, count, since, tick }) {
  const byStart = new Map(rows.map((row) => [Date.parse(row.window_start), row]));
  const newest = Math.max(-Infinity, ...byStart.keys());
  const whole = tick === null ? -Infinity : firstOf(tick - LAG_MS, widthMs, 2);
  const last = Math.max(newest, whole);
  if (!Number.isFinite(last)) return [];
  const windows = [];
  for (let start = last - (count - 1) * widthMs; start <= last; start += widthMs) {
    const row = byStart.get(start) ?? null;
    windows.push({ start, row, isKnown: row !== null || (since !== null && start >= since) });
  }
  const first = windows.findIndex(({ isKnown }) => isKnown);
  return first < 0 || newest === -Infinity ? [] : windows.slice(Math.max(0, Math.min(first, count - FEWEST)));
}
