//! A bar chart of counts: a bar for each class, with its number above and its name below. It is drawn like the chart of
//! a key's calls and has at most [`MOST`] bars.

use ab_glyph::FontRef;
use keytide_config::Language;
use tiny_skia::Pixmap;

use super::chart::{
    Align, BOTTOM, CALM, Canvas, FONT, GREY, GRID, HEIGHT, INK, LEFT, PAPER, RIGHT, TEXT, TITLE, TOP, WIDTH,
    color, short, step,
};
use super::words::Wording;

const MOST: usize = 12;

/// Draws a title and named bars as a PNG. Returns `None` if all counts are 0.
#[must_use]
pub fn bars(title: &str, bars: &[(&str, u64)]) -> Option<Vec<u8>> {
    let bars = &bars[..bars.len().min(MOST)];
    let most = bars.iter().map(|bar| bar.1).max().filter(|most| *most > 0)? as f64;
    let font = FontRef::try_from_slice(FONT).ok()?;
    let mut canvas = Canvas { pixmap: Pixmap::new(WIDTH.into(), HEIGHT.into())?, font };
    canvas.pixmap.fill(color(PAPER));
    canvas.text(LEFT - 96.0, 50.0, TITLE, INK, Align::Left, title);

    let step = step(most);
    let steps = (most / step).ceil().max(1.0);
    let y = |count: f64| BOTTOM - (BOTTOM - TOP) * (count / (step * steps)) as f32;
    let lines = std::iter::successors(Some(0.0), |line| Some(line + 1.0)).take_while(|line| *line <= steps);
    for count in lines.map(|line| step * line) {
        canvas.fill(LEFT, y(count) - 1.0, RIGHT, y(count) + 1.0, GRID);
        let label = short(count, Wording(Language::En));
        canvas.text(LEFT - 14.0, y(count) + TEXT * 0.34, TEXT, GREY, Align::Right, &label);
    }
    let width = (RIGHT - LEFT) / bars.len() as f32;
    for (at, (name, count)) in bars.iter().enumerate() {
        let middle = LEFT + width * (at as f32 + 0.5);
        let top = y(*count as f64);
        canvas.fill(middle - width * 0.36, top, middle + width * 0.36, BOTTOM, CALM);
        canvas.text(middle, BOTTOM + 44.0, TEXT, GREY, Align::Middle, name);
        if *count > 0 {
            let label = short(*count as f64, Wording(Language::En));
            canvas.text(middle, top - 10.0, TEXT, INK, Align::Middle, &label);
        }
    }
    canvas.fill(LEFT, BOTTOM - 1.0, RIGHT, BOTTOM + 1.0, GREY);
    canvas.pixmap.encode_png().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_give_the_same_picture_and_others_another() {
        let picture = |count| bars("Minutes to the alert", &[("0", 3), ("1", count)]).unwrap();
        assert!(picture(7).starts_with(b"\x89PNG"));
        assert_eq!(picture(7), picture(7));
        assert_ne!(picture(7), picture(2));
        for most in [1, 1_000_000, u64::MAX] {
            assert!(bars("", &[("x", most)]).is_some(), "{most}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(bars("nothing", &[]), None);
        assert_eq!(bars("nothing", &[("0", 0)]), None);
    }
}
