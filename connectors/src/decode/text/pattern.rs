//! Splits lines of a pattern, which consists of literals and variables, without guessing.
//!
//! Callers choose values, and some servers don't escape them. So a line that can be read in two ways must not be read
//! in just one of them:
//!
//! 1. *Fast.* Quotes cut the pattern into regions. A line with exactly these quotes has one region for each. If the
//!    server escapes, only unescaped quotes are counted. Within a region variables of a known form (numbers, words,
//!    times) are matched from both ends, and one of any form takes the rest. There is no other reading.
//! 2. *Thorough*, if that fails. For each piece, all positions are found at which it can begin such that the pieces
//!    before and behind it match. A variable whose beginning and end are certain has its value, and all others are
//!    unknown. A call whose key or time is uncertain counts under `conflicting`.
//!
//! So quotes within an agent of Envoy's cost nothing. Only if they look like the pattern, the agent is unknown.
//!
//! Limits: 1,048,576 positions of a line in all; a line with more is refused. Time is linear in the line if blanks,
//! quotes or brackets delimit the pattern's words and lists.

use keytide_config::{
    Field, KeyFrom, LineField, LineForm, LinePattern, LineTime, Piece, Pointer, Source, TimePart, Unit,
    Variable, Zone, header_name,
};

use super::super::shape::configured;
use super::clock::TimeParts;
use super::{EventField, Fault, FieldValue, RawEvent, Values, closing_quote, set_request};
use crate::time::{clf, rfc3339};

/// The fault of lines that aren't calls, such as those of connections.
const NOT_A_CALL: Fault = Fault::new("not a call", "has neither method, path nor status");

const MAX_POSITIONS: usize = 1 << 20;

/// Bytes that delimit variables, so no variable next to one holds it.
const DELIMITERS: &[u8] = b"\"[](){}<>|;,'=&\t ";

/// The range of a variable's value in a line.
#[derive(Clone, Copy, Default)]
struct Capture {
    start: usize,
    end: usize,
    /// True if there are further readings, of which this is the first.
    is_uncertain: bool,
}

impl Capture {
    fn certain(start: usize, end: usize) -> Self {
        Self { start, end, is_uncertain: false }
    }
}

/// The ranges of a line's values, reused from line to line.
#[derive(Default)]
pub(super) struct Captured {
    captures: Vec<Capture>,
    sets: Vec<Vec<usize>>,
}

/// Matches lines against a compiled pattern.
pub(super) struct Matcher {
    parts: Vec<PatternPart>,
    variables: Vec<Compiled>,
    /// The regions between the pattern's quotes, or `None` if no line can be read the fast way.
    regions: Option<Vec<Region>>,
    /// True if the server escapes quotes.
    escapes: bool,
    /// Places of the time, of which the first that isn't empty counts.
    times: Vec<Times>,
    /// A variable with the digits behind the point of the second, if the time itself lacks them.
    fraction: Option<usize>,
    request: Option<usize>,
    zone: Zone,
    /// True if the pattern has the method, the path or the route of calls.
    describes_calls: bool,
}

#[derive(Clone)]
enum PatternPart {
    Literal(Box<str>),
    Variable(usize),
}

struct Compiled {
    form: LineForm,
    /// The bytes of its values, when it is read forwards and backwards.
    forward: Box<[bool; 256]>,
    backward: Box<[bool; 256]>,
    /// True if its end can be found from its beginning, and its beginning from its end.
    ends: bool,
    begins: bool,
    time: Option<LineTime>,
    roles: Vec<VariableRole>,
    is_time: bool,
    /// The field of the call's identity that it is. If it is uncertain, the call counts under no key of its own.
    identifies: Option<EventField>,
}

enum VariableRole {
    Field(EventField, u8, Option<Unit>),
    /// A latency of NGINX's, which counts only if it is one number.
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

/// Assumptions about the values of a line, under which it is read.
struct Assumptions<'q> {
    /// The quotes that no value holds, if the server escapes them.
    quotes: Option<&'q [usize]>,
    dashes: bool,
}

/// The parts between two quotes of the pattern.
struct Region {
    parts: Vec<PatternPart>,
    way: Way,
}

enum Way {
    /// Parts before this index are read forwards, those behind it backwards, and it takes the rest.
    Rest(usize),
    /// All parts are words, if the text has this number of blanks.
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

    /// Plans which variables make the time.
    fn plan_times(&mut self, pattern: &LinePattern, source: &Source) {
        if let Some(field) = &source.fields.time {
            // The canonical step knows its unit, its form and its zone.
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

    /// Returns the incomplete time that is only a zone.
    fn zone(&self, partial: &[usize]) -> Option<usize> {
        let is_zone = |at: &&usize| match &self.variables[**at].time {
            Some(LineTime::Parts(parts)) => {
                parts.iter().all(|part| matches!(part, TimePart::Offset { .. } | TimePart::ZoneName))
            }
            _ => false,
        };
        partial.iter().find(is_zone).copied()
    }

    /// Reads a line: first its values' ranges, fast or thoroughly, then the fields that they are.
    pub(super) fn read<'a>(&self, line: &'a str, values: &'a mut Values) -> Result<RawEvent<'a>, Fault> {
        const NO_LINE: Fault =
            Fault::new("not a line of the pattern", "what the pattern has between its variables");
        let Values { number, captured, .. } = values;
        captured.captures.clear();
        captured.captures.resize(self.variables.len(), Capture::default());
        let mut raw = RawEvent::default();
        if self.read_fast(line, &mut captured.captures).is_none() {
            let quotes = self.escapes.then(|| unescaped_quotes(line));
            // A line is read as it should be first, then with an identd, and then as with `escape=none`.
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
            // A call needs a time. If that is uncertain, the call counts under no key.
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
                // Without certain forwarders the caller behind a trusted proxy is unknown.
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
        // An uncertain key can't be taken out of texts either, and its caller may have written it there.
        if is_key_uncertain {
            for name in [EventField::Path, EventField::Query, EventField::UserAgent, EventField::Api] {
                raw.clear(name);
            }
        }
        Ok(raw)
    }

    /// Sets the time from the first place that isn't empty.
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

    /// Reads a line the fast way.
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

    /// Reads a line the thorough way, and returns whether there is a reading.
    ///
    /// 1. From the left, the ends that each part can have such that all parts before it match.
    /// 2. From the right, those of them from which the line's end can be reached.
    /// 3. A variable with one beginning and one end is certain; of any other the first reading is kept.
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
        // 1. Each set holds the positions at which a part can begin.
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
            // With some of the readings alone, uncertain values would look certain.
            if room == 0 {
                return Err(LIMIT);
            }
            ends.sort_unstable();
            ends.dedup();
            positions += ends.len();
        }
        // 2. Positions from which the line's end can't be reached are no readings.
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
        // 3. Only one beginning and one end make a value certain.
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

    /// Calls `each` with the start and the end of every reading of part `at` that begins at one of the sorted `starts`.
    /// For parts of any form each end comes once, with the first start that has it. Stops once `each` is false.
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
        // The end of the last run of bytes of the form, in which many starts may lie.
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

    /// Adds those of `starts` to `kept` from which part `at` can reach one of `ends`.
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
            // It can reach any end up to the next quote that no value holds.
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

/// Returns whether a line is one of a call. A TCP connection has neither method nor path, and no status.
fn is_call(raw: &RawEvent<'_>) -> bool {
    let status = !matches!(raw.get(EventField::Status), FieldValue::Missing | FieldValue::Plain("0" | "000"));
    status
        || [EventField::Method, EventField::Path, EventField::Route]
            .iter()
            .any(|name| !raw.get(*name).is_empty())
}

/// Cuts off the method of a route of HTTP APIs, such as `GET /orders/{id}`, and drops `$default`, which is no route.
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
        // A word doesn't hold its delimiter. Other bytes it may hold, such as the colon before a port.
        let delimits = |byte: u8| !in_form(byte) || DELIMITERS.contains(&byte);
        let next = match behind {
            Some(Piece::Literal(text)) => text.bytes().next(),
            // Two variables without a literal between them are a host and its path.
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

    /// Returns whether a value has the variable's form.
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

/// The rank of a variable among the places of a field in `[source.fields]`.
fn place_of(field: &Field, variable: &Variable) -> Option<u8> {
    field.at.iter().position(|at| is(at, variable)).and_then(|at| u8::try_from(at).ok())
}

/// Returns whether a pointer means a variable.
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

/// Returns the roles of a variable's values.
fn roles(variable: &Variable, source: &Source) -> Vec<VariableRole> {
    let mut roles = Vec::new();
    for name in EventField::ALL {
        match configured(source, name) {
            // A field that is mapped has no default.
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
            // If a rule reads this field, every value of it is a secret, even those that don't count.
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

/// Returns a variable's role for field `name`, unless that is mapped.
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

/// Returns the field of a role if it decides under which key the call counts.
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

/// Splits the parts at the quotes of the pattern.
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
    /// Plans how a region is read. Returns `None` if it can't be read the fast way.
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

    /// Reads a region, which is `line[start..end]`.
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

    /// Reads a region in which no value has a blank of its own.
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
                    // This literal ends the region.
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

/// Counts the bytes at the start that are of a class.
fn run(text: &[u8], class: &[bool; 256]) -> usize {
    text.iter().take_while(|byte| class[usize::from(**byte)]).count()
}

/// Counts the bytes at the end that are of a class.
fn run_back(text: &[u8], class: &[bool; 256]) -> usize {
    text.iter().rev().take_while(|byte| class[usize::from(**byte)]).count()
}

/// The offset of the next element of a list, if one of its elements, perhaps with a comma, ends at `end`.
fn next_element(text: &[u8], end: usize) -> Option<usize> {
    match text.get(end..)? {
        [b' ', b':', b' ', ..] => Some(end + 3),
        [b' ', ..] if end > 0 && text[end - 1] == b',' => Some(end + 1),
        _ => None,
    }
}

/// The offsets of the quotes that aren't escaped, in order.
fn unescaped_quotes(line: &str) -> Vec<usize> {
    let mut quotes = Vec::new();
    let mut at = 0;
    while let Some(quote) = closing_quote(line.as_bytes(), at) {
        quotes.push(quote);
        at = quote + 1;
    }
    quotes
}
