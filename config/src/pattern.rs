//! Patterns of text lines: the log format of a server's own configuration, parsed into literals and variables.
//!
//! Four dialects are known by their signs, of which the first that occurs counts:
//!
//! | dialect | sign |
//! |---|---|
//! | Envoy | `%START_TIME%`: a name of capitals between percent signs |
//! | Amazon API Gateway | `$context.` |
//! | Apache httpd | `%t` or `%{...}t`, or a percent sign where there is no dollar sign |
//! | NGINX | `$name` or `${name}` |
//!
//! A variable has a field of the record and a form of its values. Unknown variables are skipped. Two variables must
//! have a literal between them, or a line would be ambiguous. There are two exceptions: the first has a fixed width
//! (`%{msec_frac}t%{%z}t`), or the second begins with its own sign (`$host$request_uri`).
//!
//! Limits: 8 KiB of a pattern, 64 variables.

mod apache;
mod envoy;
mod nginx;
mod time;

use std::fmt;

use crate::time::Unit;

pub use self::time::{LineTime, TimePart};

/// Bytes of a pattern, at most.
const MAX_BYTES: usize = 8 << 10;
const MAX_VARIABLES: usize = 64;

/// A parsed pattern of text lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePattern {
    text: String,
    dialect: Dialect,
    pieces: Vec<Piece>,
}

/// The server in whose language a pattern is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Nginx,
    Apache,
    Envoy,
    /// The access log format of a stage of Amazon API Gateway.
    ApiGateway,
}

impl Dialect {
    /// Returns whether the server escapes quotes within values. The others write a caller's text unchanged.
    #[must_use]
    pub fn escapes(self) -> bool {
        matches!(self, Self::Nginx | Self::Apache)
    }
}

/// A part of a line's pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text that stands unchanged in every line.
    Literal(String),
    Variable(Variable),
}

/// A part of a pattern whose text differs from line to line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name in the server's language without signs, such as `http_user_agent` or `{User-Agent}i`.
    pub name: String,
    /// The field of the record, with a rank. If several variables have one field, the lowest rank with a value wins.
    pub field: Option<(LineField, u8)>,
    /// The request headers that its values are from, in lower case with `_` for `-`.
    pub headers: Vec<String>,
    /// The query argument that its values are from.
    pub argument: Option<String>,
    pub form: LineForm,
}

/// A field of a record that a line can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineField {
    /// The request's id, made by the gateway.
    RequestId,
    /// The time, or a part of it.
    Time(LineTime),
    Api,
    /// The host that the caller named.
    Host,
    Route,
    /// The path, with or without its query.
    Path,
    Query,
    Request,
    Method,
    Status,
    Latency(Unit),
    BytesIn,
    BytesOut,
    ClientIp,
    ForwardedFor,
    Country,
    UserAgent,
    Key,
    Credential,
    User,
}

/// The form of a variable's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineForm {
    /// A fixed number of bytes.
    Fixed(usize),
    /// A status of at most four digits or signs.
    Status,
    Number,
    Word,
    /// The user by identd, which is `-` unless the server asks identd.
    Ident,
    /// Words with `, ` or ` : ` between them, as NGINX writes values of several servers.
    List,
    /// Any text, which mostly a caller chose.
    Free,
}

/// The reason why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternFault {
    /// The character at which it fails, counted from 1; `None` for the whole text.
    pub at: Option<usize>,
    pub problem: String,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "at character {at}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// A problem at a byte of the pattern.
struct Misread(usize, String);

/// A piece and the byte of the pattern at which it begins.
type PlacedPiece = (usize, Piece);

impl LinePattern {
    /// Parses a pattern of any dialect.
    ///
    /// # Errors
    /// If it is no pattern of any dialect, has no time, or would make a line ambiguous.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        let whole = |problem: String| PatternFault { at: None, problem };
        if text.len() > MAX_BYTES {
            return Err(whole(format!("{} bytes, allowed: at most {MAX_BYTES}", text.len())));
        }
        let source = text.strip_suffix("\\n").unwrap_or(text).trim_end_matches(['\n', '\r']);
        let dialect = dialect(source).ok_or_else(|| {
            whole(
                "no variable of NGINX ($name), Apache httpd (%h), Envoy (%NAME%) or Amazon API Gateway ($context.name)"
                    .to_owned(),
            )
        })?;
        let pieces = match dialect {
            Dialect::Nginx => nginx::pieces(source),
            Dialect::ApiGateway => nginx::context_pieces(source),
            Dialect::Apache => apache::pieces(source),
            Dialect::Envoy => envoy::pieces(source),
        };
        let pieces = pieces.and_then(joined).map_err(|Misread(byte, problem)| {
            let before = source.get(..byte).map_or(0, |before| before.chars().count());
            PatternFault { at: Some(before + 1), problem }
        })?;
        let pattern = Self { text: text.to_owned(), dialect, pieces };
        let variables = pattern.variables().count();
        if variables > MAX_VARIABLES {
            return Err(whole(format!("{variables} variables, allowed: at most {MAX_VARIABLES}")));
        }
        let times: Vec<&LineTime> = pattern.times().collect();
        if !time::is_complete(&times) {
            let problem = match times.is_empty() {
                true => "has no variable for the time, and every record needs its time".to_owned(),
                false => "the time has no date or no time of day, and every record needs both".to_owned(),
            };
            return Err(whole(format!("{problem}; allowed: one such as {}", dialect.time())));
        }
        Ok(pattern)
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the dialect in which it is written.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns literals, none of which is empty, and variables, in their order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns the variables, in their order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(variable),
            Piece::Literal(_) => None,
        })
    }

    /// Returns whether its times are finer than whole seconds.
    #[must_use]
    pub fn has_fractions(&self) -> bool {
        self.times().any(LineTime::has_fraction)
    }

    fn times(&self) -> impl Iterator<Item = &LineTime> {
        self.variables().filter_map(|variable| match &variable.field {
            Some((LineField::Time(time), _)) => Some(time),
            _ => None,
        })
    }
}

impl Dialect {
    /// Returns a variable for the time, as messages suggest it.
    fn time(self) -> &'static str {
        match self {
            Self::Nginx => "$time_iso8601 or $msec",
            Self::Apache => "%t",
            Self::Envoy => "%START_TIME%",
            Self::ApiGateway => "$context.requestTimeEpoch",
        }
    }
}

fn dialect(text: &str) -> Option<Dialect> {
    if envoy::has_sign(text) {
        return Some(Dialect::Envoy);
    }
    if text.contains("$context.") {
        return Some(Dialect::ApiGateway);
    }
    let dollar = nginx::has_sign(text);
    if text.contains('%') && (!dollar || text.contains("%t") || text.contains("}t")) {
        return Some(Dialect::Apache);
    }
    dollar.then_some(Dialect::Nginx)
}

impl Variable {
    /// Returns a variable without a field, whose values are skipped.
    fn other(name: &str, form: LineForm) -> Self {
        Self { name: name.to_owned(), field: None, headers: Vec::new(), argument: None, form }
    }

    fn of(name: &str, field: LineField, rank: u8, form: LineForm) -> Self {
        Self { field: Some((field, rank)), ..Self::other(name, form) }
    }

    fn header(name: &str, header: &str) -> Self {
        let header = header_name(header);
        let field = match header.as_str() {
            "user_agent" => Some((LineField::UserAgent, 0)),
            "x_forwarded_for" => Some((LineField::ForwardedFor, 0)),
            "host" => Some((LineField::Host, 1)),
            _ => None,
        };
        Self { field, headers: vec![header], ..Self::other(name, LineForm::Free) }
    }

    /// Returns whether a value can stand directly before one of `next`, because its end is clear nevertheless.
    fn ends_before(&self, next: &Self) -> bool {
        let is = |field: fn(&LineField) -> bool, variable: &Self| {
            variable.field.as_ref().is_some_and(|(of, _)| field(of))
        };
        let path = |field: &LineField| matches!(field, LineField::Path);
        let host = |field: &LineField| matches!(field, LineField::Host | LineField::Api);
        matches!(self.form, LineForm::Fixed(_)) || (is(host, self) && is(path, next))
    }
}

/// Returns a header's name in the form in which rules and variables are compared: lower case, with `_` for `-`.
#[must_use]
pub fn header_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Joins adjacent literals and the parts of a path, and refuses variables whose values would be ambiguous.
fn joined(pieces: Vec<PlacedPiece>) -> Result<Vec<Piece>, Misread> {
    let mut out: Vec<Piece> = Vec::new();
    for (at, piece) in pieces {
        match (out.last_mut(), piece) {
            (_, Piece::Literal(text)) if text.is_empty() => {}
            (Some(Piece::Literal(before)), Piece::Literal(text)) => before.push_str(&text),
            (Some(Piece::Variable(before)), Piece::Variable(variable)) => {
                if is_path_and_query(before, &variable) {
                    before.name.push_str(&variable.name);
                } else if before.ends_before(&variable) {
                    if !matches!(before.form, LineForm::Fixed(_)) {
                        before.form = LineForm::Word;
                    }
                    out.push(Piece::Variable(variable));
                } else {
                    let problem = format!(
                        "nothing stands between {} and {}, so that a line can't tell where the one ends; allowed: \
                         a blank, or quotes around each",
                        before.name, variable.name
                    );
                    return Err(Misread(at, problem));
                }
            }
            (_, piece) => out.push(piece),
        }
    }
    Ok(out)
}

/// Returns whether two variables are the parts of a path as it was sent, such as `%U%q` and `$uri$is_args$args`.
fn is_path_and_query(path: &Variable, next: &Variable) -> bool {
    matches!(path.field, Some((LineField::Path, _))) && matches!(next.name.as_str(), "q" | "is_args" | "args")
}

#[cfg(test)]
mod tests;
