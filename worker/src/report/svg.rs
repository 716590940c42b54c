//! Charts of reports as inline SVG: bars by day.
//!
//! All arithmetic is of integers, so a chart has the same bytes everywhere. Colours and fonts are classes, which the page's
//! style sheet sets. A chart has no text of strangers: labels are numbers and dates of ours.
//!
//! Limits: 400 bars.

use std::fmt::Write as _;

use super::numbers::whole;

/// The size of a chart in its own units.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 190;
/// The room for labels at the left and below, and above the highest line.
const LEFT: u64 = 78;
const BELOW: u64 = 24;
const ABOVE: u64 = 10;
/// The most bars that are drawn.
const BARS: usize = 400;
/// The most labels below the bars.
const LABELS: usize = 16;

/// A bar of a chart.
pub(super) struct Bar {
    /// The text below it, and for readers of screens.
    pub(super) label: String,
    /// `None` if nothing is known, which has no bar.
    pub(super) value: Option<u128>,
}

/// Draws bars from zero. `title` says what they are.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    let bars = &bars[..bars.len().min(BARS)];
    let most = bars.iter().filter_map(|bar| bar.value).max().unwrap_or(0);
    let (top, step) = axis(most);
    let (room, floor) = (WIDTH - LEFT, HEIGHT - BELOW);
    let height = floor - ABOVE;
    let mut out = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
    );
    // Writing to a string doesn't fail.
    let mut line = 0;
    while line <= top {
        let y = floor - scaled(line, top, height);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y}\" x2=\"{WIDTH}\" y2=\"{y}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8,
            y + 4,
            whole(i128::try_from(line).unwrap_or(i128::MAX))
        );
        let Some(next) = line.checked_add(step) else { break };
        line = next;
    }
    let count = bars.len().max(1) as u64;
    let every = bars.len().div_ceil(LABELS).max(1);
    for (at, bar) in bars.iter().enumerate() {
        // Widths in tenths, so that all bars have one.
        let left = LEFT * 10 + at as u64 * room * 10 / count;
        let slot = room * 10 / count;
        let (x, width) = (left + slot / 8, (slot * 3 / 4).max(1));
        if let Some(value) = bar.value {
            let high = scaled(value, top, height).max(u64::from(value > 0));
            let _ = write!(
                out,
                "<rect class=\"bar\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{high}\"><title>{}: {}</title></rect>",
                tenths(x),
                floor - high,
                tenths(width),
                bar.label,
                whole(i128::try_from(value).unwrap_or(i128::MAX)),
            );
        }
        if at % every == 0 {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                tenths(left + slot / 2),
                floor + 16,
                bar.label
            );
        }
    }
    out + "</svg>"
}

fn tenths(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Returns the part of a height that a value has of the axis.
fn scaled(value: u128, top: u128, height: u64) -> u64 {
    let part = match value.checked_mul(u128::from(height)) {
        Some(product) => product / top.max(1),
        None => value / (top / u128::from(height)).max(1),
    };
    u64::try_from(part).unwrap_or(height).min(height)
}

/// Returns the axis' end, and the distance of its lines: 1, 2 or 5 times a power of ten, at most five of them.
fn axis(most: u128) -> (u128, u128) {
    let mut power = 1_u128;
    loop {
        for factor in [1, 2, 5] {
            let Some(step) = power.checked_mul(factor) else { return (most, most.max(1)) };
            if most.div_ceil(step) <= 5 {
                return (most.div_ceil(step).max(1).saturating_mul(step), step);
            }
        }
        let Some(next) = power.checked_mul(10) else { return (most, most.max(1)) };
        power = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bar(value: Option<u128>) -> Bar {
        Bar { label: "1".to_owned(), value }
    }

    #[test]
    fn an_absent_day_has_no_bar_and_a_small_one_is_seen() {
        let svg = bars("calls", &[bar(None), bar(Some(0)), bar(Some(1)), bar(Some(1_000_000))]);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert_eq!(svg.matches("height=\"0\"").count(), 1);
        assert_eq!(svg.matches("height=\"1\"").count(), 1);
        assert!(svg.contains(">1,000,000</text>"), "{svg}");
        assert_eq!(bars("calls", &[]).matches("<rect").count(), 0);
    }

    proptest! {
        #[test]
        fn bars_stay_within_the_axis(values in prop::collection::vec(prop_oneof![any::<u128>(), 0_u128..1_000], 0..40)) {
            let most = values.iter().max().copied().unwrap_or(0);
            let (top, step) = axis(most);
            prop_assert!(top >= most && step > 0 && top / step <= 5);
            for value in values {
                prop_assert!(scaled(value, top, 100) <= 100);
            }
        }
    }
}
