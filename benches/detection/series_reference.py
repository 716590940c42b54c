#!/usr/bin/env python3
"""The score of `keytide backtest --csv` a second time, in plain Python, by the formulas alone.

    python3 benches/detection/series_reference.py              # prints dataflow/src/detect/series/expected.csv
    python3 benches/detection/series_reference.py FILE.csv     # prints timestamp,value,bits of a history of counts

The formulas stand in dataflow/src/detect/series/. Every part here is written the obvious way: sums are added up anew for
each row, tails keep no state but their bins, and the season is a dictionary.
"""

import csv
import math
import sys
from datetime import datetime, timezone

HOUR, DAY = 3600, 86400
UP = (300, 900, 1800, 3600)  # widths of the sums that rise, in seconds
DOWN = 4 * HOUR


def rows_of(span, step):
    return max(1, round(span / step))


def clamp(value, most):
    return max(-most, min(most, value))


class Tail:
    """The distribution of one z-score over the last weeks, and the bits of z."""

    def __init__(self):
        self.bins = {bin: 0.0 for bin in range(48)}

    def judge(self, z, counted, judged):
        want, taken, beyond, bin = 0.01 * counted, 0.0, 0.0, 47
        while bin > 0 and taken + self.bins[bin] < want:
            taken += self.bins[bin]
            beyond += self.bins[bin] * (bin + 0.5) / 4
            bin -= 1
        part = min(1.0, (want - taken) / self.bins[bin]) if self.bins[bin] > 0 else 0.0
        quantile = (bin + 1 - part) / 4
        beyond += (want - taken) * (bin + 1 - part / 2) / 4 - quantile * want
        excess = max(0.2, (beyond + 30 * 0.7) / (want + 30))
        learned = min(z, quantile + 6 * excess) if judged else z
        self.bins[min(47, max(0, math.floor(learned * 4)))] += 1
        if not judged or z <= quantile:
            return 0.0
        return min(40.0, math.log2(100) + (z - quantile) / (excess * math.log(2)))


class Level:
    """Mean and variance of ln(1 + x)."""

    def __init__(self, mean):
        self.mean, self.variance = mean, 1.0


class Model:
    def __init__(self, step):
        self.step, self.day = step, rows_of(DAY, step)
        self.counts, self.last = [], None  # since the last interruption
        self.rows, self.counted = 0, 0.0
        self.seen, self.shifts = {}, [{} for _ in UP]
        self.levels, self.recent = None, None
        self.tails = {kind: [Tail() for _ in UP] for kind in "SM"} | {"D": [Tail()]}
        self.passed = None

    def gain(self, half_life_days):
        return max(1 - 2 ** (-self.step / DAY / half_life_days), 1 / (self.rows + 2))

    def sum(self, span):
        """ln(1 + x); fewer rows than the span has stand for all."""
        width = rows_of(span, self.step)
        last = self.counts[-width:]
        return math.log(1 + sum(last) * (width / len(last)))

    def score(self, time, count):
        if self.last is not None and time - self.last - self.step > HOUR:
            self.counts = []
        self.last = time if self.last is None else max(self.last, time)
        self.counts = self.counts[1 - rows_of(DOWN, self.step) :] if rows_of(DOWN, self.step) > 1 else []
        self.counts.append(count)

        weekend = int(time // DAY + 3) % 7 >= 5
        hour = int(time // HOUR) % 24
        phase = time % HOUR / HOUR - 0.5
        here, near = (weekend, hour), (weekend, (hour + (1 if phase > 0 else -1)) % 24)
        parts = {here: 1 - abs(phase), near: abs(phase)}
        known = {slot: parts[slot] * n / (n + 12) for slot in parts for n in [self.seen.get(slot, 0)]}
        slot_gain = 0.5 * min(0.3, max(0.01, 1 / (self.seen.get(here, 0) + 1)))
        judged = self.rows >= self.day

        sums = [self.sum(span) for span in (*UP, DOWN)]
        if self.levels is None:
            self.levels, self.recent = [Level(y) for y in sums], [Level(y) for y in sums[:4]]
        bits = {"S": [], "M": [], "D": []}
        for scale, y in enumerate(sums):
            level, shifts = self.levels[scale], self.shifts[min(scale, 3)]
            expected = level.mean + sum(known[slot] * shifts.get(slot, 0.0) for slot in parts)
            deviation = math.sqrt(level.variance + 1 / (1 + math.exp(clamp(expected, 50))))
            z = (y - expected) / deviation
            if scale < 4:
                recent = self.recent[scale]
                residual, spread = y - recent.mean, math.sqrt(recent.variance) + 0.1
                bits["S"].append(self.tails["S"][scale].judge(z, self.counted, judged))
                less = min(z, residual / spread)
                bits["M"].append(self.tails["M"][scale].judge(less, self.counted, judged))
                square = clamp(residual, 4 * spread) ** 2
                recent.variance = max(1e-4, recent.variance + self.gain(28) * (square - recent.variance))
                recent.mean += self.gain(4) * residual
            else:
                bits["D"].append(self.tails["D"][0].judge(-z, self.counted, judged))
            clipped = clamp(y - expected, 4 * deviation)
            level.mean += self.gain(28) * clipped
            level.variance = max(1e-3, level.variance + self.gain(28) * (clipped**2 - level.variance))
            if scale < 4:
                for slot, part in parts.items():
                    shifts[slot] = shifts.get(slot, 0.0) + slot_gain * part * clipped
        self.seen[here] = self.seen.get(here, 0) + 1
        self.counted += 1
        self.rows += 1
        if self.rows % self.day == 0:
            self.counted *= 2 ** (-1 / 28)
            for tail in sum(self.tails.values(), []):
                tail.bins = {bin: n * 2 ** (-1 / 28) for bin, n in tail.bins.items()}
        return self.hold(max(sum(bits["M"]) / 4, 0.8 * sum(bits["S"]) / 4, 0.7 * bits["D"][0]))

    def hold(self, raw):
        if self.passed and self.rows - self.passed[0] > rows_of(12 * HOUR, self.step):
            self.passed = None
        if self.passed and raw <= self.passed[1] + 1:
            return 0.0
        self.passed = (self.rows, raw)
        return math.floor(raw * 4) / 4


# The cases of expected.csv. All is integers, so that any language makes the same counts.

START = 1_748_822_537  # 2025-06-02T00:02:17Z, a Monday


def noise(seed, row):
    """SplitMix64 of seed and row."""
    z = (seed * 0x9E3779B97F4A7C15 + row * 0xD1B54A32D192ED03) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def count(seed, level, row, time):
    """A day and a week, noise about as large as that of independent calls, and now and then a burst or an outage."""
    hour = time // HOUR % 24
    mean = level * (4 + min(hour, 24 - hour)) // 10
    if (time // DAY + 3) % 7 >= 5:
        mean = mean * 2 // 5
    hash = noise(seed, row)
    sway = sum(hash >> shift & 255 for shift in (0, 8, 16, 24)) - 510  # deviation 148
    value = max(0, mean + sway * math.isqrt(mean) // 148)
    event = noise(seed, 1_000_000 + row // 40)  # one in 10 blocks of 40 rows has an event
    if event % 10 == 0 and row % 40 < (event >> 8) % 8:
        value = (0, value // 3, value * 3, value * 40)[(event >> 16) % 4]
    return value


# Name, step in seconds, rows, level, divisor of counts, and every which block of 500 rows has a gap.
CASES = (
    ("five_minutes", 300, 10_080, 120, 1, 0),
    ("few_calls", 300, 8_064, 2, 1, 0),
    ("minutes", 60, 11_520, 40, 1, 0),
    ("hours", 3_600, 4_000, 900, 1, 0),
    ("days", 86_400, 900, 5_000, 1, 0),
    ("sevenths", 420, 6_000, 60, 7, 0),
    ("gaps", 300, 8_064, 120, 1, 1),
)


def case(step, rows, level, divisor, gaps, seed):
    """Pairs of time and count; where there are gaps, 1, 13 or 60 rows are missing in each 500."""
    for row in range(rows):
        if gaps and row % 500 >= 500 - (1, 13, 60)[row // 500 % 3]:
            continue
        time = START + row * step
        yield time, count(seed, level, row, time) / divisor


def expected():
    print("case,row,quarters")
    for seed, (name, step, *shape) in enumerate(CASES):
        model, sum = Model(step), 0
        for row, (time, value) in enumerate(case(step, *shape, seed)):
            sum += (row + 1) * round(value * shape[2])
            quarters = round(4 * model.score(time, value))
            if quarters > 0:
                print(f"{name},{row},{quarters}")
        print(f"{name},sum,{sum}")


def scored(path):
    rows = list(csv.DictReader(open(path)))
    times = [datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00")) for row in rows]
    times = [(time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp() for time in times]
    gaps = sorted(later - time for time, later in zip(times, times[1:]) if later > time)
    model = Model(gaps[(len(gaps) - 1) // 2])
    print("timestamp,value,bits")
    for row, time in zip(rows, times):
        print(f"{row['timestamp']},{row['value']},{model.score(time, float(row['value']))}")


if __name__ == "__main__":
    scored(sys.argv[1]) if len(sys.argv) > 1 else expected()
