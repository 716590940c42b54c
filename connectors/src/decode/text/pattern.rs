//! Lines of a pattern: literals and variables, taken apart without guessing.
//!
//! Callers choose values, and some servers write them as they are. So a line that can be read in two ways must not be
//! read in one of them:
//!
//! 1. *Fast.* Quotes of the pattern cut it into regions. A line that has exactly these quotes (of a server that escapes:
//!    unescaped ones) has one region for each. Within a region variables of a known form (numbers, words, times) are
//!    matched from both ends, and one of any form takes what is left: there is no other reading.
//! 2. *Thorough*, where that fails. For each piece, the positions at which it can begin such that all before it matches,
//!    and all behind it. A variable whose beginning and end are certain has its value; others are unknown. A call whose
//!    key or time is uncertain counts under `conflicting`.
//!
//! So quotes within an agent of Envoy's cost nothing but, where they look like the pattern, the agent.
//!
//! Limits: 1,048,576 positions of a line in all; beyond, it is refused. Time is linear in the line where blanks, quotes or
//! brackets delimit the pattern's words and lists.

use keytide_config::{
    Field, KeyFrom, LineField, LineForm, LinePattern, LineTime, Piece, Pointer, Source, TimePart, Unit,
    Variable, Zone, header_name,
};

use super::super::shape::configured;
use super::clock::TimeParts;
use super::{EventField, Fault, FieldValue, RawEvent, Values, closing_quote, set_request};
use crate::time::{clf, rfc3339};

/// A line of a connection, say.
const NOT_A_CALL: Fault = Fault::new("not a call", "has neither method, path nor status");

const MAX_POSITIONS: usize = 1 << 20;

/// What stands before and behind variables, and so in none of them.
const DELIMITERS: &[u8] = b"\"[](){}<>|;,'=&\t ";

/// The place of a variable's value in a line.
#[derive(Clone, Copy, Default)]
struct Capture {
    start: usize,
    end: usize,
    /// Whether there are others: this is the first.
    is_uncertain: bool,
}

impl Capture {
    fn certain(start: usize, end: usize) -> Self {
        Self { start, end, is_uncertain: false }
    }
}

/// The places of a line's values; reused from line to line.
#[derive(Default)]
pub(super) struct Captured {
    captures: Vec<Capture>,
    sets: Vec<Vec<usize>>,
}

/// A compiled pattern.
pub(super) struct Matcher {
    parts: Vec<PatternPart>,
    variables: Vec<Compiled>,
    /// `None`: no line can be read the fast way.
    regions: Option<Vec<Region>>,
    /// Whether the server escapes quotes.
    escapes: bool,
    /// Where the time is, the first that says something.
    times: Vec<Times>,
    /// Digits behind the point of a second, beside a time without.
    fraction: Option<usize>,
    request: Option<usize>,
    zone: Zone,
    /// Whether lines say what was called.
    describes_calls: bool,
}

#[derive(Clone)]
enum PatternPart {
    Literal(Box<str>),
    Variable(usize),
}

struct Compiled {
    form: LineForm,
    /// Bytes that its values have, seen from before and from behind.
    forward: Box<[bool; 256]>,
    backward: Box<[bool; 256]>,
    /// Whether its end shows from before, and its beginning from behind.
    ends: bool,
    begins: bool,
    time: Option<LineTime>,
    roles: Vec<VariableRole>,
    is_time: bool,
    /// What of the call's identity it is: a call in which it is uncertain counts under no key of its own.
    identifies: Option<EventField>,
}

enum VariableRole {
    Field(EventField, u8, Option<Unit>),
    /// A latency of NGINX's that counts where it is one number.
    Single(u8, Unit),
    Key(u16),
    KeyArgument(u16),
}

enum Times {
    /// A value that the canonical step reads.
    Plain(usize, Option<Unit>),
    /// Variables that are read together.
    Parts(Vec<usize>),
}

/// What the values of a line may hold.
struct Assumptions<'q> {
    /// Quotes that no value holds, where that is known.
    quotes: Option<&'q [usize]>,
    dashes: bool,
}

/// What stands between two quotes of the pattern.
struct Region {
    parts: Vec<PatternPart>,
    way: Way,
}

enum Way {
    /// All from before, but for the part at this place, which takes what is left, and those behind it.
    Rest(usize),
    /// All are words, if the text has this many blanks.
    Words(usize),
}

impl Matcher {
    pub(super) fn new(pattern: &LinePattern, source: &Source) -> Self {
        let mut parts = Vec::new();
        let mut variables = Vec::new();
        for piece in pattern.pieces() {
            match piece {
                Piece::Literal(text) => parts.push(PatternPart::Literal(text.as_str().into())),
                Piece::Variable(_) => {
                    parts.push(PatternPart::Variable(variables.len()));
                    variables.push(());
                }
            }
        }
        let pieces = pattern.pieces();
        let variables: Vec<Compiled> = pieces
            .iter()
            .enumerate()
            .filter_map(|(at, piece)| match piece {
                Piece::Variable(variable) => {
                    let before = at.checked_sub(1).and_then(|before| pieces.get(before));
                    Some(Compiled::new(variable, before, pieces.get(at + 1), source))
                }
                Piece::Literal(_) => None,
            })
            .collect();
        let regions = regions(&parts).into_iter().map(|parts| Region::new(parts, &variables)).collect();
        let mut matcher = Self {
            parts,
            variables,
            regions,
            escapes: pattern.dialect().escapes(),
            times: Vec::new(),
            fraction: None,
            zone: source.zone.clone(),
            describes_calls: pattern.variables().any(|variable| {
                let field = variable.field.as_ref().map(|(field, _)| field);
                matches!(
                    field,
                    Some(LineField::Method | LineField::Path | LineField::Route | LineField::Request)
                )
            }),
            request: pattern
                .variables()
                .position(|variable| matches!(variable.field, Some((LineField::Request, _)))),
        };
        matcher.plan_times(pattern, source);
        matcher
    }

    /// Which variables say the time.
    fn plan_times(&mut self, pattern: &LinePattern, source: &Source) {
        if let Some(field) = &source.fields.time {
            // Its unit, its form and its zone are the canonical step's.
            let at =
                field.at.iter().filter_map(|at| pattern.variables().position(|variable| is(at, variable)));
            self.times.extend(at.map(|at| Times::Plain(at, None)));
            return;
        }
        let mut complete: Vec<(u8, u8, usize)> = Vec::new();
        let mut partial = Vec::new();
        for (at, variable) in pattern.variables().enumerate() {
            let Some((LineField::Time(time), rank)) = &variable.field else { continue };
            match time {
                LineTime::Fraction => self.fraction = self.fraction.or(Some(at)),
                time if time.is_complete() => complete.push((u8::from(is_whole(time)), *rank, at)),
                _ => partial.push(at),
            }
        }
        complete.sort_unstable();
        for (_, _, at) in complete {
            let plan = match &self.variables[at].time {
                Some(LineTime::Clf) if self.fraction.is_none() => Times::Plain(at, Some(Unit::Clf)),
                Some(LineTime::Rfc3339) => Times::Plain(at, Some(Unit::Rfc3339)),
                Some(LineTime::Epoch(unit)) => Times::Plain(at, Some(*unit)),
                _ => Times::Parts([at].into_iter().chain(self.zone(&partial)).collect()),
            };
            self.times.push(plan);
        }
        if !partial.is_empty() {
            self.times.push(Times::Parts(partial));
        }
    }

    /// Of times that are incomplete, that which says the zone alone.
    fn zone(&self, partial: &[usize]) -> Option<usize> {
        let is_zone = |at: &&usize| match &self.variables[**at].time {
            Some(LineTime::Parts(parts)) => {
                parts.iter().all(|part| matches!(part, TimePart::Offset { .. } | TimePart::ZoneName))
            }
            _ => false,
        };
        partial.iter().find(is_zone).copied()
    }

    /// Takes a line apart.
    pub(super) fn read<'a>(&self, line: &'a str, values: &'a mut Values) -> Result<RawEvent<'a>, Fault> {
        const NO_LINE: Fault =
            Fault::new("not a line of the pattern", "what the pattern has between its variables");
        let Values { number, captured, .. } = values;
        captured.captures.clear();
        captured.captures.resize(self.variables.len(), Capture::default());
        let mut raw = RawEvent::default();
        if self.read_fast(line, &mut captured.captures).is_none() {
            let quotes = self.escapes.then(|| unescaped_quotes(line));
            // As it should be first, then with identd, then as with `escape=none`.
            let readings = quotes.as_deref().map(Some).into_iter().chain([None]);
            let mut readings = readings.flat_map(|quotes| [(quotes, true), (quotes, false)]);
            loop {
                let (quotes, dashes) = readings.next().ok_or(NO_LINE)?;
                if self.read_thoroughly(line, &Assumptions { quotes, dashes }, captured)? {
                    break;
                }
            }
            raw.recovered = captured.captures.iter().any(|capture| capture.is_uncertain);
        }
        let captures = &captured.captures;
        let text = |at: usize| {
            let Capture { start, end, is_uncertain } = captures[at];
            // A call needs a time, and counts under no key's where that is uncertain.
            (!is_uncertain || self.variables[at].is_time).then(|| &line[start..end])
        };
        let value: fn(&'a str) -> FieldValue<'a> = if self.escapes { super::log } else { FieldValue::Plain };
        let mut is_key_uncertain = false;
        for (at, variable) in self.variables.iter().enumerate() {
            if captures[at].is_uncertain {
                if let Some(name) = variable.identifies {
                    raw.set_conflict(name);
                    is_key_uncertain |= !matches!(name, EventField::ClientIp | EventField::ForwardedFor);
                }
                // Who forwarded the call is unknown, and so is the caller behind a trusted proxy.
                if variable
                    .roles
                    .iter()
                    .any(|role| matches!(role, VariableRole::Field(EventField::ForwardedFor, ..)))
                {
                    raw.set(EventField::ForwardedFor, FieldValue::Plain("?"));
                }
                continue;
            }
            let text = &line[captures[at].start..captures[at].end];
            for role in &variable.roles {
                match *role {
                    VariableRole::Field(name, rank, unit) => raw.set_from(name, rank, value(text), unit),
                    VariableRole::Single(rank, unit) => {
                        if !text.contains([',', ':', ' ']) {
                            raw.set_from(EventField::Latency, rank, FieldValue::Plain(text), Some(unit));
                        }
                    }
                    VariableRole::Key(rule) => raw.set_key_value(rule, value(text)),
                    VariableRole::KeyArgument(rule) => {
                        let is_plain = !text.contains('\\') && text.contains(['%', '+']);
                        raw.set_key_value(
                            rule,
                            if is_plain { FieldValue::Argument(text) } else { value(text) },
                        );
                    }
                }
            }
        }
        self.set_time(text, &mut raw, number)?;
        if let Some(request) = self.request.and_then(text) {
            set_request(&mut raw, request, value);
        }
        finish_route(&mut raw);
        if self.describes_calls && !is_call(&raw) {
            return Err(NOT_A_CALL);
        }
        // A key that can't be told can't be taken out of texts either, and its caller may have written it there.
        if is_key_uncertain {
            for name in [EventField::Path, EventField::Query, EventField::UserAgent, EventField::Api] {
                raw.clear(name);
            }
        }
        Ok(raw)
    }

    /// Sets the time, of the first place that says something.
    fn set_time<'a>(
        &self,
        text: impl Fn(usize) -> Option<&'a str>,
        raw: &mut RawEvent<'a>,
        number: &'a mut String,
    ) -> Result<(), Fault> {
        const FORMAT: Fault = Fault::new("time", "must be as the pattern's format has it");
        let value_at = |at: usize| text(at).map_or(FieldValue::Missing, FieldValue::Plain);
        for times in &self.times {
            match times {
                Times::Plain(at, unit) if !value_at(*at).is_empty() => {
                    raw.set_from(EventField::Time, 0, value_at(*at), *unit);
                    return Ok(());
                }
                Times::Parts(parts) if !value_at(parts[0]).is_empty() => {
                    let ms = self.parts_ms(parts, &text).ok_or(FORMAT)?;
                    number.clear();
                    number.push_str(itoa::Buffer::new().format(ms));
                    raw.set_time(FieldValue::Number(number), Unit::Millis);
                    return Ok(());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn parts_ms<'a>(&self, parts: &[usize], text: &impl Fn(usize) -> Option<&'a str>) -> Option<i64> {
        let mut clock = TimeParts::default();
        let mut base = None;
        for &at in parts {
            match self.variables[at].time.as_ref()? {
                LineTime::Parts(parts) => clock.read(parts, text(at)?)?,
                LineTime::Clf => base = Some(clf(text(at)?.as_bytes())?),
                _ => return None,
            }
        }
        if let Some(at) = self.fraction {
            clock.read_fraction(text(at)?)?;
        }
        match base {
            Some(ms) => Some(ms + clock.fraction_ms()),
            None => clock.ms(&self.zone),
        }
    }

    /// The first way of the module.
    fn read_fast(&self, line: &str, captures: &mut [Capture]) -> Option<()> {
        let regions = self.regions.as_ref()?;
        let bytes = line.as_bytes();
        let mut start = 0;
        for (at, region) in regions.iter().enumerate() {
            let quote = match self.escapes {
                true => closing_quote(bytes, start),
                false => memchr::memchr(b'"', &bytes[start..]).map(|quote| start + quote),
            };
            let last = at + 1 == regions.len();
            let end = match quote {
                Some(quote) if !last => quote,
                None if last => line.len(),
                _ => return None,
            };
            region.read(line, start, end, &self.variables, captures)?;
            start = end + 1;
        }
        Some(())
    }

    /// The second way of the module: whether there is a reading.
    fn read_thoroughly(
        &self,
        line: &str,
        assumptions: &Assumptions<'_>,
        captured: &mut Captured,
    ) -> Result<bool, Fault> {
        const LIMIT: Fault = Fault::new(
            "unescaped",
            "more than 1048576 positions at which quotes that a caller sent could end",
        );
        let Captured { captures, sets } = captured;
        let count = self.parts.len();
        sets.resize_with(count + 1, Vec::new);
        sets.iter_mut().for_each(Vec::clear);
        sets[0].push(0);
        let mut positions = 1;
        for at in 0..count {
            let (before, behind) = sets.split_at_mut(at + 1);
            let ends = &mut behind[0];
            let mut room = MAX_POSITIONS - positions;
            self.each_end(line, at, &before[at], assumptions, |_, end| {
                ends.push(end);
                room -= 1;
                room > 0
            });
            // Some of the readings alone would make what is uncertain look certain.
            if room == 0 {
                return Err(LIMIT);
            }
            ends.sort_unstable();
            ends.dedup();
            positions += ends.len();
        }
        sets[count].retain(|end| *end == line.len());
        for at in (0..count).rev() {
            let (before, behind) = sets.split_at_mut(at + 1);
            let (starts, ends) = (&mut before[at], &behind[0]);
            let mut kept = Vec::with_capacity(starts.len());
            self.keep_viable(line, at, starts, ends, assumptions, &mut kept);
            *starts = kept;
        }
        if sets[0].is_empty() {
            return Ok(false);
        }
        for (at, part) in self.parts.iter().enumerate() {
            if let PatternPart::Variable(variable) = part {
                let (starts, ends) = (&sets[at], &sets[at + 1]);
                let mut first =
                    Capture { is_uncertain: starts.len() > 1 || ends.len() > 1, ..Capture::default() };
                if first.is_uncertain {
                    self.each_end(line, at, &starts[..1], assumptions, |start, end| {
                        let is_on = ends.binary_search(&end).is_ok();
                        if is_on {
                            (first.start, first.end) = (start, end);
                        }
                        !is_on
                    });
                } else {
                    (first.start, first.end) = (starts[0], ends[0]);
                }
                captures[*variable] = first;
            }
        }
        Ok(true)
    }

    /// Calls `each` with positions at which part `at` can end that begins at one of `starts`, which are in order; of parts
    /// of any form each end once, with the first start that has it. Ends early where `each` says so.
    fn each_end(
        &self,
        line: &str,
        at: usize,
        starts: &[usize],
        assumptions: &Assumptions<'_>,
        mut each: impl FnMut(usize, usize) -> bool,
    ) {
        let bytes = line.as_bytes();
        let variable = match &self.parts[at] {
            PatternPart::Literal(literal) => {
                for start in starts.iter().filter(|start| bytes[**start..].starts_with(literal.as_bytes())) {
                    if !each(*start, start + literal.len()) {
                        return;
                    }
                }
                return;
            }
            PatternPart::Variable(variable) => &self.variables[*variable],
        };
        let literal = match self.parts.get(at + 1) {
            Some(PatternPart::Literal(literal)) => Some(literal.as_bytes()),
            _ => None,
        };
        let is_free = matches!(variable.form, LineForm::Free);
        let mut covered = 0;
        // Where the last run of bytes of the form ends, in which many starts may stand.
        let mut run_end = 0;
        for &start in starts {
            if is_free && start < covered {
                continue;
            }
            let last = match variable.form {
                LineForm::Fixed(width) => start + width,
                LineForm::Free => match assumptions.quotes {
                    Some(quotes) => {
                        let next = quotes.partition_point(|quote| *quote < start);
                        quotes.get(next).copied().unwrap_or(line.len())
                    }
                    None => line.len(),
                },
                _ => {
                    if start >= run_end {
                        run_end = start + run(&bytes[start..], &variable.forward);
                    }
                    run_end
                }
            };
            if last > line.len() || !line.is_char_boundary(last) {
                continue;
            }
            covered = last + 1;
            match (variable.form, literal) {
                (LineForm::List, _) => {
                    let mut end = last;
                    loop {
                        if !each(start, end) {
                            return;
                        }
                        let Some(next) = next_element(bytes, end) else { break };
                        end = next + run(&bytes[next..], &variable.forward);
                    }
                }
                (_, Some(literal)) if is_free || !variable.ends => {
                    let reach = (last + literal.len()).min(line.len());
                    // Occurrences may overlap: `" "` does in `" " "`.
                    for found in memchr::memchr_iter(literal[0], &bytes[start..reach]) {
                        let end = start + found;
                        if bytes[end..].starts_with(literal) && !each(start, end) {
                            return;
                        }
                    }
                }
                _ => {
                    let text = &line[start..last];
                    let fits = match (variable.form, &variable.time) {
                        (LineForm::Ident, _) if assumptions.dashes => text == "-",
                        // A run has no other bytes.
                        (LineForm::Word | LineForm::Ident | LineForm::Number, None) => true,
                        _ => variable.accepts(text),
                    };
                    if fits && !each(start, last) {
                        return;
                    }
                }
            }
        }
    }

    /// Writes those of `starts` from which part `at` can reach one of `ends` into `kept`.
    fn keep_viable(
        &self,
        line: &str,
        at: usize,
        starts: &[usize],
        ends: &[usize],
        assumptions: &Assumptions<'_>,
        kept: &mut Vec<usize>,
    ) {
        let is_free = matches!(&self.parts[at], PatternPart::Variable(variable) if self.variables[*variable].form == LineForm::Free);
        if is_free {
            // Anything up to the next quote that no value holds.
            kept.extend(starts.iter().filter(|start| {
                let next = ends.partition_point(|end| end < *start);
                let last = assumptions
                    .quotes
                    .and_then(|quotes| quotes.get(quotes.partition_point(|quote| quote < *start)).copied());
                ends.get(next).is_some_and(|end| last.is_none_or(|last| *end <= last))
            }));
            return;
        }
        self.each_end(line, at, starts, assumptions, |start, end| {
            if ends.binary_search(&end).is_ok() && kept.last() != Some(&start) {
                kept.push(start);
            }
            true
        });
    }
}

/// Whether a line is one of a call: a TCP connection has neither method nor path, and no status.
fn is_call(raw: &RawEvent<'_>) -> bool {
    let status = !matches!(raw.get(EventField::Status), FieldValue::Missing | FieldValue::Plain("0" | "000"));
    status
        || [EventField::Method, EventField::Path, EventField::Route]
            .iter()
            .any(|name| !raw.get(*name).is_empty())
}

/// `GET /orders/{id}` is a route of HTTP APIs; `$default` is whatever no other one takes.
fn finish_route(raw: &mut RawEvent<'_>) {
    if let FieldValue::Plain(route) = raw.get(EventField::Route) {
        match route.split_once(' ') {
            Some((_, path)) if path.starts_with('/') => raw.set(EventField::Route, FieldValue::Plain(path)),
            _ if route == "$default" => raw.clear(EventField::Route),
            _ => {}
        }
    }
}

impl Compiled {
    fn new(variable: &Variable, before: Option<&Piece>, behind: Option<&Piece>, source: &Source) -> Self {
        let in_form = |byte: u8| match variable.form {
            LineForm::Status | LineForm::Number => {
                byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+')
            }
            LineForm::Word | LineForm::Ident | LineForm::List => byte > b' ' && byte != 0x7F && byte != b'"',
            LineForm::Fixed(_) | LineForm::Free => true,
        };
        let class = |without: Option<u8>| {
            let mut class = Box::new([false; 256]);
            for byte in 0..=u8::MAX {
                class[usize::from(byte)] = in_form(byte) && Some(byte) != without;
            }
            class
        };
        // Of a word what delimits it is no part; other bytes may well be, as the colon before a port is.
        let delimits = |byte: u8| !in_form(byte) || DELIMITERS.contains(&byte);
        let next = match behind {
            Some(Piece::Literal(text)) => text.bytes().next(),
            // The path behind a host.
            Some(Piece::Variable(_)) => Some(b'/'),
            None => None,
        };
        let last = match before {
            Some(Piece::Literal(text)) => text.bytes().next_back(),
            Some(Piece::Variable(_)) | None => None,
        };
        let is_free = variable.form == LineForm::Free;
        let is_fixed = matches!(variable.form, LineForm::Fixed(_));
        let behind_is_path = matches!(behind, Some(Piece::Variable(_)));
        let behind_variable = matches!(before, Some(Piece::Variable(_)));
        let roles = roles(variable, source);
        let time = match &variable.field {
            Some((LineField::Time(time), _)) => Some(time.clone()),
            _ => None,
        };
        let is_time = time.is_some()
            || source.fields.time.as_ref().is_some_and(|field| place_of(field, variable).is_some());
        Self {
            form: variable.form,
            forward: class(next.filter(|byte| behind_is_path || DELIMITERS.contains(byte))),
            backward: class(last.filter(|byte| DELIMITERS.contains(byte))),
            ends: is_fixed || (!is_free && (behind_is_path || next.is_none_or(delimits))),
            begins: is_fixed
                || (!is_free
                    && variable.form != LineForm::List
                    && !behind_variable
                    && last.is_none_or(delimits)),
            time,
            identifies: match is_time {
                true => Some(EventField::Time),
                false => roles.iter().find_map(|role| identifies(role, source)),
            },
            is_time,
            roles,
        }
    }

    /// Whether a value can be one of its form.
    fn accepts(&self, text: &str) -> bool {
        let in_class = || text.bytes().all(|byte| self.forward[usize::from(byte)]);
        match (&self.time, self.form) {
            (Some(LineTime::Clf), _) => clf(text.as_bytes()).is_some(),
            (Some(LineTime::Rfc3339), _) => rfc3339(text.as_bytes()).is_some(),
            (Some(LineTime::Parts(parts)), _) => TimeParts::default().read(parts, text).is_some(),
            (_, LineForm::Status) => text.len() <= 4 && in_class(),
            (_, LineForm::Free) => true,
            _ => in_class(),
        }
    }
}

/// Which of the places of a field in `[source.fields]` is a variable.
fn place_of(field: &Field, variable: &Variable) -> Option<u8> {
    field.at.iter().position(|at| is(at, variable)).and_then(|at| u8::try_from(at).ok())
}

/// Whether a pointer means a variable.
fn is(at: &Pointer, variable: &Variable) -> bool {
    matches!(&at.0[..], [name] if *name == variable.name)
}

fn is_whole(time: &LineTime) -> bool {
    match time {
        LineTime::Clf => true,
        LineTime::Parts(parts) => !parts.iter().any(|part| matches!(part, TimePart::Fraction(_))),
        _ => false,
    }
}

/// What a variable's values become.
fn roles(variable: &Variable, source: &Source) -> Vec<VariableRole> {
    let mut roles = Vec::new();
    for name in EventField::ALL {
        match configured(source, name) {
            // What is mapped takes the place of all defaults.
            Some(field) if name != EventField::Time => {
                let unit = field.unit.filter(|_| name == EventField::Latency);
                roles.extend(place_of(field, variable).map(|rank| VariableRole::Field(name, rank, unit)));
            }
            Some(_) => {}
            None => roles.extend(default_role(variable, name)),
        }
    }
    for (rule, from) in (0..).zip(&source.keys.from) {
        let named = match from {
            KeyFrom::Header(name) => variable.headers.contains(&header_name(name)),
            KeyFrom::Field(at) => is(at, variable),
            // Where the field is a key, what stands there is a secret even if another value of the field counts.
            KeyFrom::Key => is_field(&roles, EventField::Key),
            KeyFrom::Consumer => is_field(&roles, EventField::Consumer),
            KeyFrom::Credential => is_field(&roles, EventField::Credential),
            KeyFrom::User => is_field(&roles, EventField::User),
            KeyFrom::Query(name) => {
                if variable.argument.as_ref() == Some(name) {
                    roles.push(VariableRole::KeyArgument(rule));
                }
                false
            }
            KeyFrom::ClientIp => false,
        };
        if named {
            roles.push(VariableRole::Key(rule));
        }
    }
    roles
}

fn is_field(roles: &[VariableRole], name: EventField) -> bool {
    roles.iter().any(|role| matches!(role, VariableRole::Field(of, ..) if *of == name))
}

/// What a variable is of field `name`, unless it is mapped.
fn default_role(variable: &Variable, name: EventField) -> Option<VariableRole> {
    let (field, rank) = variable.field.as_ref()?;
    let of = match field {
        LineField::RequestId => EventField::RequestId,
        LineField::Time(_) => return None,
        LineField::Api => EventField::Api,
        LineField::Host => EventField::Host,
        LineField::Route => EventField::Route,
        LineField::Path => EventField::Path,
        LineField::Query => EventField::Query,
        LineField::Request => EventField::Request,
        LineField::Method => EventField::Method,
        LineField::Status => EventField::Status,
        LineField::Latency(unit) if name == EventField::Latency => {
            return Some(match variable.form {
                LineForm::List => VariableRole::Single(*rank, *unit),
                _ => VariableRole::Field(name, *rank, Some(*unit)),
            });
        }
        LineField::Latency(_) => return None,
        LineField::BytesIn => EventField::BytesIn,
        LineField::BytesOut => EventField::BytesOut,
        LineField::ClientIp => EventField::ClientIp,
        LineField::ForwardedFor => EventField::ForwardedFor,
        LineField::Country => EventField::Country,
        LineField::UserAgent => EventField::UserAgent,
        LineField::Key => EventField::Key,
        LineField::Credential => EventField::Credential,
        LineField::User => EventField::User,
    };
    (of == name).then_some(VariableRole::Field(name, *rank, None))
}

/// What of a call's identity a role is, if it decides under which key the call counts.
fn identifies(role: &VariableRole, source: &Source) -> Option<EventField> {
    let has = |rule: fn(&KeyFrom) -> bool| source.keys.from.iter().any(rule);
    let name = match role {
        VariableRole::Key(_) | VariableRole::KeyArgument(_) => return Some(EventField::Key),
        VariableRole::Single(..) => return None,
        VariableRole::Field(name, ..) => *name,
    };
    let decides = match name {
        EventField::Key => has(|rule| *rule == KeyFrom::Key),
        EventField::Consumer => has(|rule| *rule == KeyFrom::Consumer),
        EventField::Credential => has(|rule| *rule == KeyFrom::Credential),
        EventField::User => has(|rule| *rule == KeyFrom::User),
        EventField::ClientIp | EventField::ForwardedFor => has(|rule| *rule == KeyFrom::ClientIp),
        EventField::Path | EventField::Query | EventField::Request => {
            has(|rule| matches!(rule, KeyFrom::Query(_)))
        }
        _ => false,
    };
    decides.then_some(name)
}

/// The parts between the quotes of the pattern.
fn regions(parts: &[PatternPart]) -> Vec<Vec<PatternPart>> {
    let mut regions = vec![Vec::new()];
    for part in parts {
        let PatternPart::Literal(literal) = part else {
            regions.last_mut().into_iter().for_each(|region| region.push(part.clone()));
            continue;
        };
        for (at, text) in literal.split('"').enumerate() {
            if at > 0 {
                regions.push(Vec::new());
            }
            if !text.is_empty() {
                regions
                    .last_mut()
                    .into_iter()
                    .for_each(|region| region.push(PatternPart::Literal(text.into())));
            }
        }
    }
    regions
}

impl Region {
    /// `None` where no line can be read the fast way.
    fn new(parts: Vec<PatternPart>, variables: &[Compiled]) -> Option<Self> {
        let variable = |part: &PatternPart| match part {
            PatternPart::Variable(at) => Some(&variables[*at]),
            PatternPart::Literal(_) => None,
        };
        let has = |form| parts.iter().filter_map(variable).any(|variable| variable.form == form);
        let rest = parts.iter().position(|part| variable(part).is_some_and(|variable| !variable.ends));
        let rest = rest.unwrap_or(parts.len());
        let from_behind = parts.iter().skip(rest + 1).filter_map(variable).all(|variable| variable.begins);
        if from_behind && !(has(LineForm::List) && has(LineForm::Free)) {
            return Some(Self { parts, way: Way::Rest(rest) });
        }
        let mut blanks = 0;
        for (at, part) in parts.iter().enumerate() {
            match part {
                PatternPart::Literal(literal) => {
                    let here = memchr::memchr_iter(b' ', literal.as_bytes()).count();
                    if here == 0 && at > 0 && at + 1 < parts.len() {
                        return None;
                    }
                    blanks += here;
                }
                PatternPart::Variable(at) => match &variables[*at].time {
                    Some(LineTime::Clf) => blanks += 1,
                    Some(LineTime::Parts(parts)) => {
                        if parts.contains(&TimePart::Day) && variables[*at].form == LineForm::Free {
                            return None;
                        }
                        blanks += parts.iter().filter(|part| **part == TimePart::Literal(' ')).count();
                    }
                    _ => {}
                },
            }
        }
        Some(Self { parts, way: Way::Words(blanks) })
    }

    /// Reads `line[start..end]`.
    fn read(
        &self,
        line: &str,
        start: usize,
        end: usize,
        variables: &[Compiled],
        captures: &mut [Capture],
    ) -> Option<()> {
        match self.way {
            Way::Rest(rest) => self.read_ends(line, start, end, rest, variables, captures),
            Way::Words(blanks) => {
                let found = memchr::memchr_iter(b' ', &line.as_bytes()[start..end]).count();
                if found != blanks {
                    return None;
                }
                self.read_words(line, start, end, variables, captures)
            }
        }
    }

    fn read_ends(
        &self,
        line: &str,
        mut start: usize,
        mut end: usize,
        rest: usize,
        variables: &[Compiled],
        captures: &mut [Capture],
    ) -> Option<()> {
        let bytes = line.as_bytes();
        for part in &self.parts[..rest] {
            match part {
                PatternPart::Literal(literal) => {
                    bytes[start..end].starts_with(literal.as_bytes()).then_some(())?;
                    start += literal.len();
                }
                PatternPart::Variable(at) => {
                    let variable = &variables[*at];
                    let mut last = match variable.form {
                        LineForm::Fixed(width) => start + width,
                        _ => start + run(&bytes[start..end], &variable.forward),
                    };
                    while variable.form == LineForm::List
                        && let Some(next) = next_element(&bytes[..end], last)
                    {
                        last = next + run(&bytes[next..end], &variable.forward);
                    }
                    (last <= end && line.is_char_boundary(last)).then_some(())?;
                    captures[*at] = Capture::certain(start, last);
                    start = last;
                }
            }
        }
        let Some((middle, behind)) = self.parts[rest..].split_first() else {
            return (start == end).then_some(());
        };
        for part in behind.iter().rev() {
            match part {
                PatternPart::Literal(literal) => {
                    bytes[start..end].ends_with(literal.as_bytes()).then_some(())?;
                    end -= literal.len();
                }
                PatternPart::Variable(at) => {
                    let variable = &variables[*at];
                    let first = match variable.form {
                        LineForm::Fixed(width) => end.checked_sub(width)?,
                        _ => end - run_back(&bytes[start..end], &variable.backward),
                    };
                    (first >= start && line.is_char_boundary(first)).then_some(())?;
                    captures[*at] = Capture::certain(first, end);
                    end = first;
                }
            }
        }
        let PatternPart::Variable(at) = middle else { return None };
        variables[*at].accepts(&line[start..end]).then_some(())?;
        captures[*at] = Capture::certain(start, end);
        Some(())
    }

    /// Reads a text in which no value has a blank of its own.
    fn read_words(
        &self,
        line: &str,
        mut start: usize,
        end: usize,
        variables: &[Compiled],
        captures: &mut [Capture],
    ) -> Option<()> {
        let bytes = line.as_bytes();
        for (index, part) in self.parts.iter().enumerate() {
            let at = match part {
                PatternPart::Literal(literal) => {
                    bytes[start..end].starts_with(literal.as_bytes()).then_some(())?;
                    start += literal.len();
                    continue;
                }
                PatternPart::Variable(at) => *at,
            };
            let variable = &variables[at];
            let last = match (variable.form, self.parts.get(index + 1)) {
                (LineForm::Fixed(width), _) => start + width,
                (_, None) => end,
                (_, Some(PatternPart::Literal(literal))) => match memchr::memchr(b' ', literal.as_bytes()) {
                    Some(before) => {
                        let blank = memchr::memchr(b' ', bytes.get(start + before..end)?)?;
                        start + blank
                    }
                    // The literal that ends the region.
                    None => end.checked_sub(literal.len())?,
                },
                (_, Some(PatternPart::Variable(_))) => start + run(&bytes[start..end], &variable.forward),
            };
            (last >= start && last <= end && line.is_char_boundary(last)).then_some(())?;
            variable.accepts(&line[start..last]).then_some(())?;
            captures[at] = Capture::certain(start, last);
            start = last;
        }
        (start == end).then_some(())
    }
}

/// How many bytes at the start are of a class.
fn run(text: &[u8], class: &[bool; 256]) -> usize {
    text.iter().take_while(|byte| class[usize::from(**byte)]).count()
}

/// How many bytes at the end are of a class.
fn run_back(text: &[u8], class: &[bool; 256]) -> usize {
    text.iter().rev().take_while(|byte| class[usize::from(**byte)]).count()
}

/// Where the next element of a list begins, one of whose elements ends at `end`, a comma perhaps among it.
fn next_element(text: &[u8], end: usize) -> Option<usize> {
    match text.get(end..)? {
        [b' ', b':', b' ', ..] => Some(end + 3),
        [b' ', ..] if end > 0 && text[end - 1] == b',' => Some(end + 1),
        _ => None,
    }
}

/// Quotes that aren't escaped, in order.
fn unescaped_quotes(line: &str) -> Vec<usize> {
    let mut quotes = Vec::new();
    let mut at = 0;
    while let Some(quote) = closing_quote(line.as_bytes(), at) {
        quotes.push(quote);
        at = quote + 1;
    }
    quotes
}
