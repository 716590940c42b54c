//! Compiles the members of a JSON record that are read into a tree, and reads records with it.
//!
//! Everything that the tree doesn't name is skipped. Members that aren't in the tree cost a look at a 64-bit filter.
//! Each tree remembers which of its members followed which. So members that are in it cost one comparison in place as
//! long as records keep their order.
//!
//! **Invariant**: if a member that identifies the call has two values that differ, [`RawEvent::conflict`] names it.
//! Such members are key, credential, consumer, user, request id, time, client, and all places of `[keys].from`. A
//! caller can write one of the two if a gateway's template doesn't escape.
//!
//! Limits: 256 such members, more than any shape has. OTLP arrays within arrays are read to 8 levels.

use std::cell::Cell;

use keytide_config::{Condition, Field, KeyFrom, RoutesFrom, Source, Unit};

use super::container::behind_agents;
use super::escape::unescape_json;
use super::raw::{EventField, IDENTITIES, IdentityIndex, RawEvent};
use super::reader::{JsonError, JsonReader};
use super::value::FieldValue;

/// The expectation that a value with a hidden member of the identity doesn't meet.
pub(super) const HIDDEN: &str = "a value that holds nothing of the call's identity";

/// The depth to which arrays within arrays of OTLP values are read.
const TYPED_DEPTH: usize = 8;

/// The places of the canonical fields in a gateway's format. Pointers are RFC 6901 without escapes.
pub(super) struct RecordFormat {
    /// Of several pointers the first whose value isn't empty counts, whatever their order in the record.
    pub(super) fields: &'static [(EventField, &'static [&'static str])],
    /// The unit of times and latencies, but for those in `units`.
    pub(super) unit: Unit,
    /// The pointers with a unit of their own.
    pub(super) units: &'static [(&'static str, Unit)],
    /// Objects that hold fields as the record itself does, or arrays that stand for objects. The elements of such
    /// arrays are `{"key": NAME, "value": {"stringValue": TEXT}}`, as OTLP writes them.
    pub(super) attributes: &'static [&'static str],
    pub(super) headers: Option<&'static str>,
    pub(super) query: Option<&'static str>,
    /// Names of members that hold the values that a rule of `[keys].from` looks for. Query arguments stand there as in
    /// the query, percent-encoded.
    pub(super) members: fn(&KeyFrom) -> Vec<String>,
    /// True if callers may have chosen the request id.
    pub(super) ids_of_callers: bool,
    /// The number of places of the request id, from the first, that are the gateway's own all the same.
    pub(super) vouched_ids: u8,
    pub(super) template: Template,
    /// Adjusts a record whose fields depend on each other.
    pub(super) finish: fn(&mut RawEvent<'_>),
}

/// Whether an encoder of JSON writes the records, or an operator's template is filled in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Template {
    None,
    /// They may be a template's, whose values are mostly escaped.
    Escaped,
    /// They are a template's, whose values may not be escaped. A line is one record, or many that are alike.
    Unescaped,
    /// They are a template's, whose values may not be escaped, and a line is always one record.
    Line,
}

impl RecordFormat {
    /// A format without any field.
    pub(super) const EMPTY: Self = Self {
        fields: &[],
        unit: Unit::Millis,
        units: &[],
        attributes: &[],
        headers: None,
        query: None,
        members: |_| Vec::new(),
        ids_of_callers: false,
        vouched_ids: 0,
        template: Template::None,
        finish: |_| {},
    };
}

/// A format, combined with the source's own fields and keys.
pub(super) struct Shape {
    root: MemberTree,
    /// The units of the time, the end and the latency.
    pub(super) units: [Unit; 3],
    finish: fn(&mut RawEvent<'_>),
    vouched_ids: u8,
    /// The quoted names of members that identify the call, if callers may hide the real ones.
    identities: Vec<Box<str>>,
    /// The conditions of `[source.only]`.
    only: Vec<Condition>,
    /// True if records describe calls at all. A mapping without status, method, path and route takes every record for a
    /// call.
    describes_calls: bool,
}

#[derive(Default)]
struct MemberTree {
    members: Vec<Member>,
    /// True for headers, in whose names case makes no difference.
    case_folded: bool,
    /// True if an array at its place holds names and typed values.
    attributes: bool,
    /// Has bit [`filter_bit`] of every name.
    filter: u64,
    /// The member that followed each member lately. The last entry is the first member of all.
    followers: Vec<Cell<usize>>,
}

struct Member {
    name: Box<str>,
    /// The name as JSON with the colon behind it, as it stands in a compact record.
    quoted: Box<str>,
    index: Option<usize>,
    roles: Vec<MemberRole>,
    /// The one field that it is, as nearly all members are. Then its roles needn't be looked at.
    field: Option<(EventField, u8, Option<Unit>)>,
    /// Set if it is one of the members that identify the call.
    identity: Option<IdentityIndex>,
    tree: MemberTree,
}

#[derive(Clone, Copy)]
enum MemberRole {
    /// A place of a field, with its rank and a unit of its own. Of several places that of the lowest rank counts.
    Field(EventField, u8, Option<Unit>),
    /// A place that rule `.0` of `[keys].from` names.
    Key(u16),
    /// A place that rule `.0` of `[keys].from` names, whose value is percent-encoded.
    KeyArgument(u16),
    /// A place of rank `.0` that may hold the record itself.
    Wrapped(u8),
    /// The place that condition `.0` of `[source.only]` is about.
    Only(u8),
}

impl MemberRole {
    /// Returns whether a member of this role identifies the call.
    fn is_identity(self) -> bool {
        use EventField::{ClientIp, Consumer, Credential, Key, RequestId, Time, User};
        match self {
            Self::Field(name, ..) => {
                matches!(name, Key | Credential | Consumer | User | RequestId | Time | ClientIp)
            }
            Self::Key(_) | Self::KeyArgument(_) => true,
            Self::Wrapped(_) | Self::Only(_) => false,
        }
    }
}

impl Shape {
    /// The shape of `source`'s records.
    pub(super) fn new(source: &Source, format: &RecordFormat) -> Self {
        let mut root = MemberTree::default();
        if let Some(headers) = format.headers {
            root.at(below(headers)).tree.case_folded = true;
        }
        for attributes in format.attributes {
            root.at(below(attributes)).tree.attributes = true;
        }
        // The record itself comes first, then the objects that hold its attributes.
        let parents = || std::iter::once("").chain(format.attributes.iter().copied());
        for name in EventField::ALL {
            // If a rule reads this field, every value of it is a secret, even those that don't count.
            let rules: Vec<u16> = (0..)
                .zip(&source.keys.from)
                .filter(|(_, from)| reads(from) == Some(name))
                .map(|(rule, _)| rule)
                .collect();
            let field_name = if name == EventField::Route && source.routes == RoutesFrom::Path {
                EventField::GatewayRoute
            } else {
                name
            };
            if let Some(field) = configured(source, name) {
                for (rank, pointer) in (0..).zip(&field.at) {
                    let tokens = || pointer.0.iter().map(String::as_str);
                    root.insert(tokens(), MemberRole::Field(field_name, rank, None));
                    rules.iter().for_each(|rule| root.insert(tokens(), MemberRole::Key(*rule)));
                }
                continue;
            }
            let pointers = format.fields.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, at)| at);
            let places = pointers.iter().flat_map(|pointer| parents().map(move |parent| (parent, *pointer)));
            for (rank, (parent, pointer)) in (0..).zip(places) {
                let unit = format.units.iter().find(|(of, _)| *of == pointer).map(|(_, unit)| *unit);
                let tokens = || below(parent).chain(below(pointer));
                root.insert(tokens(), MemberRole::Field(field_name, rank, unit));
                rules.iter().for_each(|rule| root.insert(tokens(), MemberRole::Key(*rule)));
            }
        }
        // Further places where keys are looked for are headers, query arguments and own pointers.
        for (rule, from) in (0..).zip(&source.keys.from) {
            match (from, format.headers, format.query) {
                (KeyFrom::Header(name), Some(parent), _) | (KeyFrom::Query(name), _, Some(parent)) => {
                    root.insert(below(parent).chain([name.as_str()]), MemberRole::Key(rule));
                }
                (KeyFrom::Field(pointer), ..) => {
                    root.insert(pointer.0.iter().map(String::as_str), MemberRole::Key(rule));
                }
                _ => {}
            }
            let encoded = matches!(from, KeyFrom::Query(_));
            for member in (format.members)(from) {
                let role = if encoded { MemberRole::KeyArgument(rule) } else { MemberRole::Key(rule) };
                for parent in parents() {
                    root.insert(below(parent).chain([member.as_str()]), role);
                }
            }
        }
        for (rank, pointer) in (0..).zip(source.unwrap.iter().chain(&source.records)) {
            root.insert(pointer.0.iter().map(String::as_str), MemberRole::Wrapped(rank));
        }
        for (index, condition) in (0..).zip(&source.only) {
            root.insert(condition.at.0.iter().map(String::as_str), MemberRole::Only(index));
        }
        let mut identities = 0;
        root.seal(&mut identities);
        debug_assert!(identities <= IDENTITIES, "{identities} members identify the call");
        // Only in templates without escapes can a caller hide members, which `pass_over` looks for.
        let mut identities = Vec::new();
        if matches!(format.template, Template::Unescaped | Template::Line) {
            let of_identity = root.members.iter().filter(|member| member.identity.is_some());
            identities.extend(of_identity.map(|member| member.quoted.trim_end_matches(':').into()));
        }
        let unit = |name| configured(source, name).and_then(|field| field.unit).unwrap_or(format.unit);
        let describes_calls = [
            EventField::Status,
            EventField::Method,
            EventField::Path,
            EventField::Route,
            EventField::Request,
        ]
        .into_iter()
        .any(|name| configured(source, name).is_some() || format.fields.iter().any(|(of, _)| *of == name));
        Self {
            root,
            units: [EventField::Time, EventField::End, EventField::Latency].map(unit),
            finish: format.finish,
            vouched_ids: format.vouched_ids,
            identities,
            only: source.only.clone(),
            describes_calls,
        }
    }

    /// Reads the object at which the reader stands.
    pub(super) fn read<'a>(
        &self,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
    ) -> Result<(), JsonError> {
        self.root.read_object(reader, raw, self)?;
        if !raw.get(EventField::Request).is_empty() {
            raw.split_request();
        }
        (self.finish)(raw);
        raw.is_vouched_for = raw.rank(EventField::RequestId).is_some_and(|rank| rank < self.vouched_ids);
        Ok(())
    }

    /// Reads the object at which a reader stands as if it were the record's member `name`.
    pub(super) fn read_member<'a>(
        &self,
        name: &str,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
    ) -> Result<(), JsonError> {
        match self.root.find(name) {
            Some(index) => self.root.members[index].read(reader, raw, self),
            None => reader.value().map(|_| ()),
        }
    }

    /// Skips an object or an array of which nothing is read.
    ///
    /// # Errors
    /// Returns an error if it holds a member that identifies the call. If a template escapes nothing, a caller may open
    /// a bracket in one value and close it in a later one. That would hide the members between them.
    fn pass_over(&self, reader: &mut JsonReader<'_>) -> Result<(), JsonError> {
        let before = reader.clone();
        reader.value()?;
        let hidden = before.until(reader).as_bytes();
        match self.identities.iter().any(|name| memchr::memmem::find(hidden, name.as_bytes()).is_some()) {
            true => Err(JsonError { expected: HIDDEN, at: before.at() }),
            false => Ok(()),
        }
    }

    /// Returns whether the record is among those that `[source.only]` names.
    pub(super) fn is_wanted(&self, raw: &RawEvent<'_>) -> bool {
        raw.met.count_ones() as usize == self.only.len()
    }

    /// Returns whether the record is one of a call.
    pub(super) fn is_call(&self, raw: &RawEvent<'_>) -> bool {
        !self.describes_calls || raw.is_call()
    }
}

/// Returns the field that a rule of `[keys].from` reads, if it reads one.
fn reads(from: &KeyFrom) -> Option<EventField> {
    match from {
        KeyFrom::Key => Some(EventField::Key),
        KeyFrom::Consumer => Some(EventField::Consumer),
        KeyFrom::Credential => Some(EventField::Credential),
        KeyFrom::User => Some(EventField::User),
        KeyFrom::Header(_) | KeyFrom::Query(_) | KeyFrom::Field(_) | KeyFrom::ClientIp => None,
    }
}

/// Returns the places that `[source.fields]` names for a field.
pub(super) fn configured(source: &Source, name: EventField) -> Option<&Field> {
    // The gateway's route shares its label with the route, and is never mapped itself.
    let mut fields = source.fields.named().into_iter().filter(|_| name != EventField::GatewayRoute);
    fields.find(|(label, _)| *label == name.label())?.1
}

/// Splits a pointer into its tokens.
fn below(pointer: &str) -> impl Iterator<Item = &str> {
    pointer.split('/').skip(1)
}

impl MemberTree {
    /// Returns the member behind a pointer, made if need be. An empty pointer, which names the record itself, is the
    /// member with the empty name, because no field is a whole record.
    fn at<'p>(&mut self, pointer: impl IntoIterator<Item = &'p str>) -> &mut Member {
        let mut tokens = pointer.into_iter();
        let member = self.member(tokens.next().unwrap_or(""));
        tokens.fold(member, |member, token| member.tree.member(token))
    }

    fn insert<'p>(&mut self, pointer: impl IntoIterator<Item = &'p str>, role: MemberRole) {
        self.at(pointer).roles.push(role);
    }

    fn member(&mut self, name: &str) -> &mut Member {
        let found = self.members.iter().position(|member| same(&member.name, name, self.case_folded));
        let at = found.unwrap_or_else(|| {
            let index = name.parse().ok().filter(|index: &usize| index.to_string() == name);
            let quoted = format!("{}:", serde_json::Value::from(name)).into();
            self.members.push(Member {
                name: name.into(),
                quoted,
                index,
                roles: Vec::new(),
                field: None,
                identity: None,
                tree: Self::default(),
            });
            self.members.len() - 1
        });
        &mut self.members[at]
    }

    /// Computes the fields that depend on all members.
    fn seal(&mut self, identities: &mut usize) {
        self.followers = vec![Cell::new(0); self.members.len() + 1];
        self.filter =
            self.members.iter().fold(0, |filter, member| filter | filter_bit(member.name.as_bytes()));
        for member in &mut self.members {
            if let [MemberRole::Field(name, rank, unit)] = member.roles[..] {
                member.field = Some((name, rank, unit));
            }
            if member.roles.iter().any(|role| role.is_identity()) {
                member.identity = IdentityIndex::try_from(*identities).ok();
                *identities += 1;
            }
            member.tree.seal(identities);
        }
    }

    fn read_object<'a>(
        &self,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<(), JsonError> {
        reader.enter_object()?;
        let mut first = true;
        let mut last = self.members.len();
        while reader.member(&mut first)? {
            // Most likely it is the one that followed in the record before.
            let guess = self.followers[last].get();
            let found = match self.members.get(guess) {
                Some(member) if reader.skip_text(&member.quoted) => Some(guess),
                _ => {
                    let name = reader.name()?;
                    let found = self.find_text(name);
                    if let Some(index) = found {
                        self.followers[last].set(index);
                    }
                    found
                }
            };
            match found {
                Some(index) => {
                    last = index;
                    self.members[index].read(reader, raw, shape)?;
                }
                None if !shape.identities.is_empty() && matches!(reader.token(), Some(b'{' | b'[')) => {
                    shape.pass_over(reader)?;
                }
                None => {
                    reader.value()?;
                }
            }
        }
        Ok(())
    }

    fn read_array<'a>(
        &self,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<(), JsonError> {
        reader.enter_array()?;
        let mut first = true;
        let mut index = 0;
        while reader.element(&mut first)? {
            match self.members.iter().find(|member| member.index == Some(index)) {
                Some(member) => member.read(reader, raw, shape)?,
                None => {
                    reader.value()?;
                }
            }
            index += 1;
        }
        Ok(())
    }

    /// Reads an array of names and typed values as if it were an object, as OTLP means it.
    fn read_attributes<'a>(
        &self,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<(), JsonError> {
        reader.enter_array()?;
        let mut first = true;
        while reader.element(&mut first)? {
            if reader.token() != Some(b'{') {
                reader.value()?;
                continue;
            }
            reader.enter_object()?;
            let (mut first, mut found, mut typed) = (true, None, None);
            while reader.member(&mut first)? {
                match reader.name()? {
                    FieldValue::Plain("key") => found = self.find_text(reader.value()?),
                    FieldValue::Plain("value") => {
                        typed = Some(reader.clone());
                        reader.value()?;
                    }
                    _ => {
                        reader.value()?;
                    }
                }
            }
            if let Some((index, mut typed)) = found.zip(typed) {
                self.members[index].read_typed(&mut typed, raw, shape)?;
            }
        }
        Ok(())
    }

    fn find_text(&self, name: FieldValue<'_>) -> Option<usize> {
        match name {
            FieldValue::Plain(name) => self.find(name),
            FieldValue::Json(escaped) => {
                let mut name = String::new();
                unescape_json(escaped, &mut name);
                self.find(&name)
            }
            _ => None,
        }
    }

    #[inline]
    fn find(&self, name: &str) -> Option<usize> {
        if self.filter & filter_bit(name.as_bytes()) == 0 {
            return None;
        }
        self.members.iter().position(|member| same(&member.name, name, self.case_folded))
    }
}

impl Member {
    // Inlined to save a call for each member of a record. Objects and arrays are read elsewhere.
    #[inline(always)]
    fn read<'a>(
        &self,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<(), JsonError> {
        let token = reader.token();
        // Each frequent kind of value has a branch of its own, so that it goes from registers to its place in the
        // record. If several kinds met in memory, the move would wait for the stores before it.
        match token {
            Some(b'"') => {
                if let Some(text) = reader.plain_text() {
                    self.take(FieldValue::Plain(text), raw, shape);
                    return Ok(());
                }
            }
            Some(b'0'..=b'9') => {
                if let Some(number) = reader.plain_number() {
                    self.take(FieldValue::Number(number), raw, shape);
                    return Ok(());
                }
            }
            _ => {}
        }
        self.read_other(token, reader, raw, shape)
    }

    /// Reads a value that isn't a plain text or number.
    #[inline(never)]
    fn read_other<'a>(
        &self,
        token: Option<u8>,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<(), JsonError> {
        let value = match token {
            Some(bracket @ (b'{' | b'[')) => self.read_nested(bracket, reader, raw, shape)?,
            token => {
                let start = reader.at();
                let value = reader.value_at(token)?;
                // Members that are read may stand in a text that is JSON itself.
                if let (FieldValue::Json(text), false) = (value, self.tree.members.is_empty())
                    && text.trim_ascii_start().starts_with(['{', '['])
                {
                    raw.nested.push(start..reader.at());
                }
                value
            }
        };
        self.take(value, raw, shape);
        Ok(())
    }

    /// Reads the members or elements of an object or an array that have roles, and the whole of it if it has one
    /// itself.
    #[inline(never)]
    fn read_nested<'a>(
        &self,
        bracket: u8,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<FieldValue<'a>, JsonError> {
        let mut whole = reader.clone();
        let has_members = !self.tree.members.is_empty();
        match bracket {
            b'{' if has_members => self.tree.read_object(reader, raw, shape)?,
            b'[' if has_members && self.tree.attributes => {
                self.tree.read_attributes(reader, raw, shape)?;
                return Ok(FieldValue::Missing);
            }
            b'[' if has_members => self.tree.read_array(reader, raw, shape)?,
            // Every element is a value of the field, so all of them must be JSON.
            b'[' if !self.roles.is_empty() => return reader.array(),
            _ => {
                return Ok(if bracket == b'{' {
                    self.object(reader.value()?, whole, reader)
                } else {
                    reader.value()?
                });
            }
        }
        Ok(match bracket {
            b'{' => self.object(FieldValue::Object, whole, reader),
            _ if self.roles.is_empty() => FieldValue::Missing,
            _ => whole.array()?,
        })
    }

    /// Returns an object's value, which keeps its text if it may be the record itself.
    fn object<'a>(
        &self,
        object: FieldValue<'a>,
        before: JsonReader<'a>,
        behind: &JsonReader<'a>,
    ) -> FieldValue<'a> {
        let wrapped = self.roles.iter().any(|role| matches!(role, MemberRole::Wrapped(_)));
        if wrapped { FieldValue::Array(before.until(behind)) } else { object }
    }

    // Inlined to save a call for each member. It is small if the member is one field.
    #[inline(always)]
    fn take<'a>(&self, value: FieldValue<'a>, raw: &mut RawEvent<'a>, shape: &Shape) {
        let repeated = self.identity.is_some_and(|identity| raw.is_repeated(identity));
        match self.field {
            Some((name, rank, unit)) if !repeated => raw.set_from(name, rank, value, unit),
            _ => self.take_each(repeated, value, raw, shape),
        }
    }

    /// Sets a value for every role of the member.
    #[inline(never)]
    fn take_each<'a>(&self, repeated: bool, value: FieldValue<'a>, raw: &mut RawEvent<'a>, shape: &Shape) {
        for role in &self.roles {
            match *role {
                MemberRole::Field(name, rank, unit) if repeated && role.is_identity() => {
                    raw.repeat(name, rank, value, unit);
                }
                MemberRole::Field(name, rank, unit) => raw.set_from(name, rank, value, unit),
                MemberRole::Key(rule) if repeated => raw.repeat_key_value(rule, value),
                MemberRole::Key(rule) => raw.set_key_value(rule, value),
                MemberRole::KeyArgument(rule) => {
                    let value = match value {
                        FieldValue::Plain(text) | FieldValue::Json(text) if !value.is_empty() => {
                            FieldValue::Argument(text)
                        }
                        other => other,
                    };
                    if repeated { raw.repeat_key_value(rule, value) } else { raw.set_key_value(rule, value) }
                }
                MemberRole::Wrapped(rank) => {
                    if let Some(rank) = wrapped_rank(rank, value) {
                        raw.set_from(EventField::Wrapped, rank, value, None);
                    }
                }
                MemberRole::Only(index) => {
                    if meets(&shape.only[usize::from(index)], value) {
                        raw.met |= 1 << index;
                    }
                }
            }
        }
    }

    /// Reads an OTLP value, which is an object whose one member is named by the value's type. Arrays count with their
    /// first value that isn't empty, as repeated headers do. If they are keys, all of their values are secrets.
    fn read_typed<'a>(
        &self,
        reader: &mut JsonReader<'a>,
        raw: &mut RawEvent<'a>,
        shape: &Shape,
    ) -> Result<(), JsonError> {
        let mut values = Vec::new();
        typed_values(reader, &mut values, 0)?;
        let first = values.iter().position(|value| !value.is_empty()).unwrap_or(0);
        for (index, value) in values.into_iter().enumerate() {
            if index == first {
                self.take(value, raw, shape);
                continue;
            }
            if self.roles.iter().any(|role| matches!(role, MemberRole::Key(_) | MemberRole::KeyArgument(_))) {
                raw.add_secret(value);
            }
        }
        Ok(())
    }
}

/// The rank of a value that may hold the record itself. Texts that may hold JSON go before objects and arrays, which
/// may be the agent's own, such as Filebeat's `log`. Other texts hold no record.
fn wrapped_rank(rank: u8, value: FieldValue<'_>) -> Option<u8> {
    const OF_AGENTS: u8 = 1 << 7;
    let text = match value {
        FieldValue::Array(_) => return Some(rank | OF_AGENTS),
        FieldValue::Plain(text) | FieldValue::Json(text) => text,
        _ => return None,
    };
    // Still escaped: a quote or a blank may begin with a backslash.
    match behind_agents(text).trim_ascii_start().as_bytes() {
        [b'{' | b'"' | b'\\', ..] => Some(rank),
        [b'[', array @ ..] => {
            matches!(array.trim_ascii_start(), [b'{' | b'[' | b'"' | b'\\', ..]).then_some(rank)
        }
        _ => None,
    }
}

/// Returns whether a value is one of those that a condition allows.
fn meets(condition: &Condition, value: FieldValue<'_>) -> bool {
    let mut buffer = String::new();
    let text = match value {
        FieldValue::Flag(flag) => Some(if flag { "true" } else { "false" }),
        other => other.text(&mut buffer).ok().flatten(),
    };
    text.is_some_and(|text| condition.is.iter().any(|pattern| pattern.matches(text)))
}

/// Adds the values of an OTLP value. Those of arrays within arrays come as if they weren't nested.
fn typed_values<'a>(
    reader: &mut JsonReader<'a>,
    values: &mut Vec<FieldValue<'a>>,
    depth: usize,
) -> Result<(), JsonError> {
    if reader.token() != Some(b'{') || depth > TYPED_DEPTH {
        return reader.value().map(|_| ());
    }
    reader.enter_object()?;
    let mut first = true;
    while reader.member(&mut first)? {
        match reader.name()? {
            FieldValue::Plain("stringValue" | "intValue" | "doubleValue" | "boolValue") => {
                values.push(reader.value()?)
            }
            FieldValue::Plain("arrayValue") => typed_array(reader, values, depth + 1)?,
            _ => {
                reader.value()?;
            }
        }
    }
    Ok(())
}

/// Adds the values of an OTLP array, which stand in its member `values`.
fn typed_array<'a>(
    reader: &mut JsonReader<'a>,
    values: &mut Vec<FieldValue<'a>>,
    depth: usize,
) -> Result<(), JsonError> {
    if reader.token() != Some(b'{') {
        return reader.value().map(|_| ());
    }
    reader.enter_object()?;
    let mut first = true;
    while reader.member(&mut first)? {
        match (reader.name()?, reader.token()) {
            (FieldValue::Plain("values"), Some(b'[')) => {
                reader.enter_array()?;
                let mut first = true;
                while reader.element(&mut first)? {
                    typed_values(reader, values, depth)?;
                }
            }
            _ => {
                reader.value()?;
            }
        }
    }
    Ok(())
}

#[inline]
fn same(name: &str, other: &str, case_folded: bool) -> bool {
    if case_folded { name.eq_ignore_ascii_case(other) } else { name == other }
}

/// One of 64 bits, chosen by a name's length and its first letter, in either case.
#[inline]
fn filter_bit(name: &[u8]) -> u64 {
    let first = name.first().map_or(0, |byte| usize::from(byte | 0x20));
    1 << ((first ^ (name.len() << 2)) & 63)
}
