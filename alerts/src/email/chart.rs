//! A chart of a key's calls around an incident: bars of five minutes, the expected calls as a line, and the incident's
//! time shaded.
//!
//! It uses neither the system's fonts nor its libraries, so the same input gives the same bytes. It has 1,200 x 620
//! pixels and large letters, because mails show it at half that size or less. At most [`MOST`] bars are drawn.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use jiff::Timestamp;
use keytide_config::Language;
use keytide_dataflow::incident_row::{PointJson, TransitionJson};
use tiny_skia::{
    Color, FillRule, LineCap, Paint, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke, StrokeDash,
    Transform,
};

use super::words::{Wording, amount};

/// A subset of Pretendard, with Latin letters and the 2,350 syllables of KS X 1001. Its licence asks for another name;
/// see `assets/font/`.
pub(super) const FONT: &[u8] = include_bytes!("../../assets/font/KeytideChart.otf");

/// The most bars: those of a day.
const MOST: usize = 288;
const STEP_S: i64 = 300;
const SPAN_S: i64 = 6 * 3_600;
pub(super) const WIDTH: u16 = 1_200;
pub(super) const HEIGHT: u16 = 620;
const EDGE: f32 = 26.0;
pub(super) const LEFT: f32 = 132.0;
pub(super) const RIGHT: f32 = 1_176.0;
pub(super) const TOP: f32 = 146.0;
pub(super) const BOTTOM: f32 = 548.0;
pub(super) const TEXT: f32 = 34.0;
pub(super) const TITLE: f32 = 40.0;

pub(super) const PAPER: [u8; 3] = [255, 255, 255];
pub(super) const INK: [u8; 3] = [31, 41, 55];
pub(super) const GREY: [u8; 3] = [91, 101, 115];
pub(super) const GRID: [u8; 3] = [226, 230, 236];
const SHADE: [u8; 3] = [253, 228, 225];
pub(super) const CALM: [u8; 3] = [138, 152, 171];
const LOUD: [u8; 3] = [200, 38, 28];
const USUAL: [u8; 3] = [17, 94, 163];

/// A chart, with its description in words for readers who can't see it.
pub(crate) struct Chart {
    pub(crate) alt: String,
    pub(crate) png: Vec<u8>,
}

/// The times of a chart and of the incident in it, in seconds since 1970.
struct Span {
    start_s: i64,
    end_s: i64,
    from_s: i64,
    to_s: i64,
}

/// Draws the traffic of a transition. Returns `None` if it has none.
pub(crate) fn chart(transition: &TransitionJson, language: Wording) -> Option<Chart> {
    let seconds = |at: &str| at.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let traffic = &transition.evidence.traffic;
    let points: Vec<(i64, &PointJson)> =
        traffic.iter().rev().take(MOST).filter_map(|point| Some((seconds(&point.start)?, point))).collect();
    let at_s = seconds(&transition.at)?;
    let last_s = points.iter().map(|point| point.0 + STEP_S).max()?;
    let end_s = last_s.max(at_s).checked_add(STEP_S - 1)? / STEP_S * STEP_S;
    let start_s = end_s - SPAN_S;
    let from_s = seconds(&transition.opened_at)?.clamp(start_s, end_s);
    let to_s = seconds(&transition.last_signal_at).unwrap_or(end_s).clamp(from_s, end_s);
    let span = Span { start_s, end_s, from_s, to_s };
    let mut points: Vec<(i64, &PointJson)> =
        points.into_iter().filter(|point| (start_s..end_s).contains(&point.0)).collect();
    points.sort_by_key(|point| point.0);
    let peak = points.iter().max_by_key(|point| point.1.calls)?.1;
    let most = amount(peak.calls as f64);
    let usual = amount(peak.expected);
    let clock = language.clock(&peak.start);
    let alt = match language.0 {
        Language::En => format!(
            "Chart of calls per five minutes over six hours: most at {clock} UTC, {most} where {usual} were expected"
        ),
        Language::Ko => {
            format!("최근 6시간의 5분당 호출 수 그래프: {clock}(UTC)에 최고 {most}회, 평소 {usual}회")
        }
    };
    Some(Chart { png: draw(&points, &span, language)?, alt })
}

/// Draws the traffic of a transition as a PNG. Returns `None` if it has none.
#[must_use]
pub fn traffic(transition: &TransitionJson, language: Language) -> Option<Vec<u8>> {
    chart(transition, Wording(language)).map(|chart| chart.png)
}

fn draw(points: &[(i64, &PointJson)], span: &Span, language: Wording) -> Option<Vec<u8>> {
    let font = FontRef::try_from_slice(FONT).ok()?;
    let mut canvas = Canvas { pixmap: Pixmap::new(WIDTH.into(), HEIGHT.into())?, font };
    canvas.pixmap.fill(color(PAPER));

    let most =
        points.iter().map(|point| (point.1.calls as f64).max(finite(point.1.expected))).fold(1.0, f64::max);
    let step = step(most);
    let steps = (most / step).ceil().max(1.0);
    let top = step * steps;
    let x = |at_s: i64| {
        LEFT + (RIGHT - LEFT) * ((at_s - span.start_s) as f32 / (span.end_s - span.start_s) as f32)
    };
    let y = |calls: f64| BOTTOM - (BOTTOM - TOP) * (calls / top) as f32;

    canvas.fill(x(span.from_s), TOP, x(span.to_s).max(x(span.from_s) + 4.0), BOTTOM, SHADE);
    let lines = (0..=5).map(f64::from).take_while(|line| *line <= steps);
    for calls in lines.map(|line| line * step) {
        canvas.fill(LEFT, y(calls) - 1.0, RIGHT, y(calls) + 1.0, GRID);
        canvas.text(LEFT - 14.0, y(calls) + TEXT * 0.34, TEXT, GREY, Align::Right, &short(calls, language));
    }
    for (at_s, point) in points {
        let loud = *at_s + STEP_S > span.from_s && *at_s < span.to_s;
        let (left, right) = (x(*at_s) + 1.5, x(at_s + STEP_S) - 1.5);
        // Even a single call must be visible.
        let height = y(point.calls as f64).min(BOTTOM - 2.0);
        canvas.fill(left, height, right, BOTTOM, if loud { LOUD } else { CALM });
    }
    let mut usual = PathBuilder::new();
    for (at_s, point) in points {
        let (left, right, level) = (x(*at_s), x(at_s + STEP_S), y(finite(point.expected).min(top)));
        if usual.is_empty() {
            usual.move_to(left, level);
        }
        usual.line_to(left, level);
        usual.line_to(right, level);
    }
    canvas.stroke(usual, USUAL);
    canvas.fill(LEFT, BOTTOM - 1.0, RIGHT, BOTTOM + 1.0, GREY);

    let first_hour = (span.start_s + 3_599) / 3_600;
    for hour in first_hour..=span.end_s / 3_600 {
        let at = x(hour * 3_600);
        canvas.fill(at - 1.0, BOTTOM, at + 1.0, BOTTOM + 10.0, GREY);
        let label = format!("{:02}:00", hour.rem_euclid(24));
        if at > LEFT + 30.0 && at < RIGHT - 30.0 {
            canvas.text(at, BOTTOM + 44.0, TEXT, GREY, Align::Middle, &label);
        }
    }
    let (title, calls, incident, expected) = match language.0 {
        Language::En => ("Calls per 5 minutes (UTC)", "calls", "during the incident", "expected"),
        Language::Ko => ("5분당 호출 수(UTC)", "호출", "사건 중 호출", "평소"),
    };
    canvas.text(EDGE, 50.0, TITLE, INK, Align::Left, title);
    let mut left = EDGE;
    for (label, shape) in [(calls, CALM), (incident, LOUD), (expected, USUAL)] {
        match shape {
            USUAL => canvas.fill(left, 92.0, left + 32.0, 97.0, USUAL),
            _ => canvas.fill(left, 82.0, left + 26.0, 108.0, shape),
        }
        left += 42.0;
        left += canvas.text(left, 107.0, TEXT, GREY, Align::Left, label) + 36.0;
    }
    canvas.pixmap.encode_png().ok()
}

/// Returns the distance of grid lines: 1, 2 or 5 times a power of ten, so that there are 2 to 5 lines.
pub(super) fn step(most: f64) -> f64 {
    let mut power = 1.0;
    while power * 10.0 <= most {
        power *= 10.0;
    }
    [0.2, 0.5, 1.0, 2.0]
        .into_iter()
        .map(|by| by * power)
        .find(|step| most / step <= 5.0)
        .unwrap_or(power * 2.0)
        .max(1.0)
}

/// Formats a number for an axis as `4,000`, `40k` or `4만`.
pub(super) fn short(calls: f64, language: Wording) -> String {
    let by = |unit: f64, name: &str| {
        let shown = calls / unit;
        if shown.fract() == 0.0 { format!("{}{name}", amount(shown)) } else { format!("{shown:.1}{name}") }
    };
    match language.0 {
        _ if calls < 10_000.0 => amount(calls),
        Language::En if calls < 1e6 => by(1e3, "k"),
        Language::En if calls < 1e9 => by(1e6, "M"),
        Language::En => by(1e9, "G"),
        Language::Ko if calls < 1e8 => by(1e4, "만"),
        Language::Ko => by(1e8, "억"),
    }
}

fn finite(calls: f64) -> f64 {
    if calls.is_finite() { calls.clamp(0.0, 1e18) } else { 0.0 }
}

pub(super) fn color([r, g, b]: [u8; 3]) -> Color {
    Color::from_rgba8(r, g, b, 255)
}

pub(super) enum Align {
    Left,
    Middle,
    Right,
}

pub(super) struct Canvas {
    pub(super) pixmap: Pixmap,
    pub(super) font: FontRef<'static>,
}

impl Canvas {
    pub(super) fn fill(&mut self, left: f32, top: f32, right: f32, bottom: f32, ink: [u8; 3]) {
        let mut paint = Paint::default();
        paint.set_color(color(ink));
        if let Some(area) = Rect::from_ltrb(left, top, right, bottom) {
            let path = PathBuilder::from_rect(area);
            self.pixmap.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
        }
    }

    fn stroke(&mut self, path: PathBuilder, ink: [u8; 3]) {
        let mut paint = Paint::default();
        paint.set_color(color(ink));
        paint.anti_alias = true;
        let dash = StrokeDash::new(vec![14.0, 8.0], 0.0);
        let stroke = Stroke { width: 4.0, line_cap: LineCap::Butt, dash, ..Stroke::default() };
        if let Some(path) = path.finish() {
            self.pixmap.stroke_path(&path, &paint, &stroke, Transform::identity(), None);
        }
    }

    /// Draws a line of text on a base line; returns its width.
    pub(super) fn text(&mut self, x: f32, y: f32, size: f32, ink: [u8; 3], align: Align, text: &str) -> f32 {
        // `PxScale` counts a font's height; `size` is its em, as in CSS.
        let em = self.font.units_per_em().unwrap_or(1_000.0);
        let scale = PxScale::from(size * self.font.height_unscaled() / em);
        let font = self.font.as_scaled(scale);
        let width: f32 = text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum();
        let mut at = match align {
            Align::Left => x,
            Align::Middle => x - width / 2.0,
            Align::Right => x - width,
        };
        for c in text.chars() {
            let id = font.glyph_id(c);
            let glyph = id.with_scale_and_position(scale, point(at, y));
            at += font.h_advance(id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let bounds = outline.px_bounds();
            let (width, height) = (self.pixmap.width(), self.pixmap.height());
            let pixels = self.pixmap.pixels_mut();
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (bounds.min.x + dx as f32, bounds.min.y + dy as f32);
                if px < 0.0 || py < 0.0 || px >= width as f32 || py >= height as f32 {
                    return;
                }
                #[expect(clippy::cast_sign_loss, reason = "within the picture")]
                let pixel = &mut pixels[py as usize * width as usize + px as usize];
                *pixel = blend(*pixel, ink, coverage);
            });
        }
        width
    }
}

/// Blends ink over an opaque pixel, in proportion to `coverage`.
fn blend(under: PremultipliedColorU8, ink: [u8; 3], coverage: f32) -> PremultipliedColorU8 {
    let coverage = coverage.clamp(0.0, 1.0);
    #[expect(clippy::cast_sign_loss, reason = "between two bytes")]
    let mix = |under: u8, ink: u8| {
        (f32::from(under) + (f32::from(ink) - f32::from(under)) * coverage).round() as u8
    };
    PremultipliedColorU8::from_rgba(
        mix(under.red(), ink[0]),
        mix(under.green(), ink[1]),
        mix(under.blue(), ink[2]),
        255,
    )
    .unwrap_or(under)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::email::samples;

    #[test]
    fn the_same_traffic_gives_the_same_bytes() {
        let transition = samples::leak();
        let [one, two] = [(); 2].map(|()| chart(&transition, Wording(Language::Ko)).unwrap());
        assert!(one.png.starts_with(b"\x89PNG"));
        assert_eq!(one.png, two.png);
        assert!(one.png.len() < 60_000, "{} bytes", one.png.len());
        assert_ne!(one.png, chart(&transition, Wording(Language::En)).unwrap().png);
    }

    #[test]
    fn the_font_has_what_charts_say() {
        let font = FontRef::try_from_slice(FONT).unwrap();
        for c in "Calls per 5 minutes (UTC) expected during the incident 0123456789:,.kMG5분당 호출 수(UTC) 평소 사건 중 호출 만억힝".chars()
        {
            assert!(font.glyph_id(c).0 != 0, "{c}");
        }
    }

    #[test]
    fn lines_are_few_at_any_scale() {
        for exponent in 0..60 {
            for most in [1.0, 1.9, 2.5, 5.0, 7.0, 9.9].map(|by| by * 2.0_f64.powi(exponent)) {
                let lines = (most / step(most)).ceil();
                assert!((1.0..=5.0).contains(&lines), "{most}: {lines}");
            }
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let mut transition = samples::leak();
        transition.evidence.traffic.clear();
        assert!(chart(&transition, Wording(Language::En)).is_none());
        let mut transition = samples::leak();
        transition.at = "never".to_owned();
        assert!(chart(&transition, Wording(Language::En)).is_none());
    }
}
