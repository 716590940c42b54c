//! Formats numbers for people.

/// Formats a number with commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a latency with two to four digits and its unit.
pub(super) fn latency(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Formats a time span, to a tenth of a second below a minute.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Formats a time span as minutes and seconds, with hours from one hour on.
pub(super) fn stopwatch(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// Formats the time of day in UTC.
pub(super) fn clock(ms: u64) -> String {
    let seconds = ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Formats a share of a thousand in percent.
pub(super) fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

/// Formats a number of bytes with its unit.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{} KiB", bytes >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes * 10) >> 20) % 10),
    }
}

/// Cuts a text to `width` characters, the last of which is an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_have_their_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 9_949, 12_900, 10_500_000].map(latency), ["0.0 ms", "9.9 ms", "12 ms", "10.5 s"]);
        assert_eq!([5_940, 840_000, 7_260_000].map(span), ["5.9 s", "14 min", "2 h 1 min"]);
        assert_eq!([59_999, 3_723_000].map(stopwatch), ["00:59", "1:02:03"]);
        assert_eq!(clock(1_748_851_205_999), "08:00:05");
        assert_eq!([0, 5, 1_000].map(percent), ["0.0 %", "0.5 %", "100.0 %"]);
        assert_eq!([1_000, 20_480, 2_412_000].map(bytes), ["1000 B", "20 KiB", "2.3 MiB"]);
        assert_eq!(cut("Ember Motors 12", 8), "Ember M…");
    }
}
