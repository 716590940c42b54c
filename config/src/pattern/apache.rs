//! Parses Apache httpd's `LogFormat` (mod_log_config, mod_logio).

use super::{LineField, LineForm, LineTime, Misread, Piece, PlacedPiece, Variable, time};
use crate::time::Unit;

pub(super) fn pieces(text: &str) -> Result<Vec<PlacedPiece>, Misread> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at + next.len_utf8()..];
        match (next, rest.as_bytes().first()) {
            ('%', Some(b'%')) => {
                literal.push('%');
                at += 2;
            }
            ('%', _) => {
                let (variable, end) = directive(text, at)?;
                pieces.push((at, Piece::Literal(std::mem::take(&mut literal))));
                pieces.push((at, Piece::Variable(variable)));
                at = end;
            }
            // Escapes of httpd.conf within quotes.
            ('\\', Some(escaped @ (b'"' | b'\\' | b't' | b'n'))) => {
                literal.push(match escaped {
                    b't' => '\t',
                    b'n' => '\n',
                    other => char::from(*other),
                });
                at += 2;
            }
            (other, _) => {
                literal.push(other);
                at += other.len_utf8();
            }
        }
    }
    pieces.push((at, Piece::Literal(literal)));
    Ok(pieces)
}

/// Returns the directive that begins at byte `start`, and the byte at which it ends.
fn directive(text: &str, start: usize) -> Result<(Variable, usize), Misread> {
    let misread = |problem: &str| Misread(start, problem.to_owned());
    let bytes = text.as_bytes();
    let mut at = start + 1;
    let (mut last, mut argument) = (None, None);
    loop {
        match bytes.get(at).copied() {
            Some(b'>' | b'<') => {
                last = Some(bytes[at] == b'>');
                at += 1;
            }
            // Statuses for which the value is written at all.
            Some(b'!' | b',' | b'0'..=b'9') => at += 1,
            Some(b'{') => {
                let close = text[at..].find('}').ok_or_else(|| misread("`%{` without its `}`"))?;
                argument = Some(&text[at + 1..at + close]);
                at += close + 1;
            }
            Some(b'[') => return Err(misread(HAPROXY)),
            Some(b'^') => {
                let Some(letters) = text.get(at..at + 3) else { return Err(misread(UNKNOWN)) };
                let name = text[start + 1..at].to_owned() + letters;
                return Ok((Variable::other(&name, LineForm::Free), at + 3));
            }
            Some(letter) if letter.is_ascii_alphabetic() => {
                // `%ci`, `%tr`: two letters are HAProxy's.
                if text[at..].starts_with("ci:%cp") || text[at..].starts_with("ci %cp") {
                    return Err(misread(HAPROXY));
                }
                let name = &text[start + 1..=at];
                return Ok((variable(name, letter, argument, last, start)?, at + 1));
            }
            _ => return Err(misread(UNKNOWN)),
        }
    }
}

const UNKNOWN: &str =
    "`%` without a directive behind it, allowed: such as %h, %>s, %{User-Agent}i, and %% for a percent sign";
const HAPROXY: &str =
    "looks like HAProxy's log-format, allowed: format = \"haproxy\" for what `option httplog` writes";

fn variable(
    name: &str,
    letter: u8,
    argument: Option<&str>,
    last: Option<bool>,
    start: usize,
) -> Result<Variable, Misread> {
    use LineField as Field;
    use LineForm::{Free, Number, Status, Word};
    let of = |field, rank, form| Variable::of(name, field, rank, form);
    let other = |form| Variable::other(name, form);
    Ok(match (letter, argument) {
        (b'a', None) => of(Field::ClientIp, 0, Word),
        (b'h', _) => of(Field::ClientIp, 1, Word),
        (b'a', Some(_)) => of(Field::ClientIp, 2, Word),
        (b'u', _) => of(Field::User, 0, Free),
        (b't', None) => of(Field::Time(LineTime::Clf), 2, LineForm::Fixed(28)),
        (b't', Some(format)) => {
            let format = format.strip_prefix("begin:").or(format.strip_prefix("end:")).unwrap_or(format);
            let (time, form) = match format {
                "sec" => (LineTime::Epoch(Unit::Seconds), Number),
                "msec" => (LineTime::Epoch(Unit::Millis), Number),
                "usec" => (LineTime::Epoch(Unit::Micros), Number),
                "msec_frac" => (LineTime::Fraction, LineForm::Fixed(3)),
                "usec_frac" => (LineTime::Fraction, LineForm::Fixed(6)),
                _ => {
                    let parts = time::parts(format).map_err(|problem| Misread(start, problem))?;
                    let form = time::width(&parts).map_or(Free, LineForm::Fixed);
                    (LineTime::Parts(parts), form)
                }
            };
            // Of several times the finest complete one wins.
            of(Field::Time(time), 0, form)
        }
        (b'r', _) => of(Field::Request, 0, Free),
        (b's', _) => of(Field::Status, u8::from(last != Some(true)), Status),
        (b'O', _) => of(Field::BytesOut, 0, Number),
        (b'b' | b'B', _) => of(Field::BytesOut, 1, Number),
        (b'I', _) => of(Field::BytesIn, 0, Number),
        (b'D', _) | (b'T', Some("us")) => of(Field::Latency(Unit::Micros), 0, Number),
        (b'T', Some("ms")) => of(Field::Latency(Unit::Millis), 1, Number),
        (b'T', None | Some("s")) => of(Field::Latency(Unit::Seconds), 2, Number),
        (b'T', Some(_)) => {
            return Err(Misread(start, "allowed: %T, %{s}T, %{ms}T and %{us}T".to_owned()));
        }
        (b'U', _) => of(Field::Path, 1, Free),
        (b'q', _) => of(Field::Query, 0, Free),
        (b'm', _) => of(Field::Method, 0, Word),
        (b'v', _) => of(Field::Api, 0, Word),
        (b'V', _) => of(Field::Host, 0, Word),
        (b'i', Some(header)) => Variable::header(name, header),
        (b'e', Some("UNIQUE_ID")) => of(Field::RequestId, 0, Word),
        (b'e', Some("GEOIP_COUNTRY_CODE" | "MM_COUNTRY_CODE")) => of(Field::Country, 0, Word),
        (b'C' | b'e' | b'f' | b'n' | b'o' | b'x', _) => other(Free),
        (b'k' | b'P' | b'p' | b'S', _) => other(Number),
        (b'l', _) => other(LineForm::Ident),
        (b'A' | b'H' | b'L' | b'R' | b'X', _) => other(Word),
        (other, _) => {
            let problem = format!("`%{}` is no directive of mod_log_config or mod_logio", char::from(other));
            return Err(Misread(start, problem));
        }
    })
}
