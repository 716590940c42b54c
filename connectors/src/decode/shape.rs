//! Which members of a JSON record are read, compiled once into a tree, and the reading of a record with it.
//!
//! Everything the tree doesn't name is skipped. Members that aren't in the tree cost a look at a 64-bit filter;
//! members that are cost one comparison in place as long as records have their members in the same order, because
//! each node remembers which of its members followed which.

use std::cell::Cell;

use keytide_config::{Field, KeyFrom, Source, Unit};

use super::raw::{Name, RawEvent, Value, unescape_json};
use super::reader::{Reader, Unreadable};

/// Where a gateway's format has the canonical fields. Pointers are RFC 6901 without escapes.
pub(super) struct Format {
    /// Of several pointers the first that says something counts.
    pub(super) fields: &'static [(Name, &'static [&'static str])],
    /// The request's headers.
    pub(super) headers: Option<&'static str>,
    /// The request's query arguments.
    pub(super) query: Option<&'static str>,
    /// Unit of time and latency.
    pub(super) unit: Unit,
    /// What a record means beyond its single fields.
    pub(super) finish: fn(&mut RawEvent<'_>),
}

/// A format with the source's own fields and keys.
pub(super) struct Shape {
    root: Node,
    /// Unit of the time.
    pub(super) time: Unit,
    /// Unit of the latency.
    pub(super) latency: Unit,
    finish: fn(&mut RawEvent<'_>),
}

#[derive(Default)]
struct Node {
    members: Vec<Member>,
    /// Whether case makes no difference in names: headers.
    case_folded: bool,
    /// Bit [`filter_bit`] of every name.
    filter: u64,
    /// The member that followed member `i` lately; the last entry is the first member of all.
    followers: Vec<Cell<usize>>,
}

struct Member {
    name: Box<str>,
    /// The name as JSON with the colon behind it, as it stands in a record that is written compactly.
    quoted: Box<str>,
    index: Option<usize>,
    targets: Vec<Target>,
    node: Node,
}

#[derive(Clone, Copy)]
enum Target {
    Field(Name),
    /// Counts unless the field is set already.
    Fallback(Name),
    /// What rule `.0` of `[keys].from` names.
    Place(u16),
}

impl Shape {
    /// The shape of `source`'s records.
    pub(super) fn new(source: &Source, format: &Format) -> Self {
        let mut root = Node::default();
        if let Some(headers) = format.headers {
            root.at(headers.split('/').skip(1)).node.case_folded = true;
        }
        for name in Name::ALL {
            let pointers =
                format.fields.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, pointers)| pointers);
            match configured(source, name) {
                Some(field) => root.insert(field.at.0.iter().map(String::as_str), Target::Field(name)),
                None => {
                    for (rank, pointer) in pointers.iter().enumerate() {
                        let target = if rank == 0 { Target::Field(name) } else { Target::Fallback(name) };
                        root.insert(pointer.split('/').skip(1), target);
                    }
                }
            }
        }
        for (rule, from) in (0..).zip(&source.keys.from) {
            match (from, format.headers, format.query) {
                (KeyFrom::Header(name), Some(parent), _) | (KeyFrom::Query(name), _, Some(parent)) => {
                    root.insert(parent.split('/').skip(1).chain([name.as_str()]), Target::Place(rule));
                }
                (KeyFrom::Field(pointer), ..) => {
                    root.insert(pointer.0.iter().map(String::as_str), Target::Place(rule));
                }
                _ => {}
            }
        }
        root.seal();
        let unit = |name| configured(source, name).and_then(|field| field.unit).unwrap_or(format.unit);
        Self { root, time: unit(Name::Time), latency: unit(Name::Latency), finish: format.finish }
    }

    /// Reads the object at which the reader stands.
    pub(super) fn read<'a>(&self, reader: &mut Reader<'a>, raw: &mut RawEvent<'a>) -> Result<(), Unreadable> {
        self.root.read_object(reader, raw)?;
        (self.finish)(raw);
        Ok(())
    }
}

/// The field that `[source.fields]` names.
fn configured(source: &Source, name: Name) -> Option<&Field> {
    let fields = &source.fields;
    match name {
        Name::RequestId => fields.request_id.as_ref(),
        Name::Time => fields.time.as_ref(),
        Name::Key => fields.key.as_ref(),
        Name::Api => fields.api.as_ref(),
        Name::Route => fields.route.as_ref(),
        Name::Path => fields.path.as_ref(),
        Name::Method => fields.method.as_ref(),
        Name::Status => fields.status.as_ref(),
        Name::Latency => fields.latency.as_ref(),
        Name::BytesIn => fields.bytes_in.as_ref(),
        Name::BytesOut => fields.bytes_out.as_ref(),
        Name::ClientIp => fields.client_ip.as_ref(),
        Name::ForwardedFor => fields.forwarded_for.as_ref(),
        Name::Country => fields.country.as_ref(),
        Name::UserAgent => fields.user_agent.as_ref(),
        Name::Consumer => fields.consumer.as_ref(),
        Name::Credential => fields.credential.as_ref(),
        Name::User => fields.user.as_ref(),
        Name::Host => None,
    }
}

impl Node {
    /// The member behind a pointer, made if need be. An empty pointer, which names the record itself, is the
    /// member with the empty name: no field is a whole record.
    fn at<'p>(&mut self, pointer: impl IntoIterator<Item = &'p str>) -> &mut Member {
        let mut tokens = pointer.into_iter();
        let member = self.member(tokens.next().unwrap_or(""));
        tokens.fold(member, |member, token| member.node.member(token))
    }

    fn insert<'p>(&mut self, pointer: impl IntoIterator<Item = &'p str>, target: Target) {
        self.at(pointer).targets.push(target);
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
                targets: Vec::new(),
                node: Self::default(),
            });
            self.members.len() - 1
        });
        &mut self.members[at]
    }

    /// Fills what depends on all members.
    fn seal(&mut self) {
        self.followers = vec![Cell::new(0); self.members.len() + 1];
        self.filter =
            self.members.iter().fold(0, |filter, member| filter | filter_bit(member.name.as_bytes()));
        self.members.iter_mut().for_each(|member| member.node.seal());
    }

    fn read_object<'a>(&self, reader: &mut Reader<'a>, raw: &mut RawEvent<'a>) -> Result<(), Unreadable> {
        reader.enter_object()?;
        let mut first = true;
        let mut last = self.members.len();
        while reader.member(&mut first)? {
            // Most likely the one that followed in the record before.
            let guess = self.followers[last].get();
            let found = match self.members.get(guess) {
                Some(member) if reader.skip_text(&member.quoted) => Some(guess),
                _ => {
                    let found = match reader.name()? {
                        Value::Plain(name) => self.find(name),
                        Value::Json(escaped) => {
                            let mut name = String::new();
                            unescape_json(escaped, &mut name);
                            self.find(&name)
                        }
                        _ => None,
                    };
                    if let Some(index) = found {
                        self.followers[last].set(index);
                    }
                    found
                }
            };
            match found {
                Some(index) => {
                    last = index;
                    self.members[index].read(reader, raw)?;
                }
                None => {
                    reader.value()?;
                }
            }
        }
        Ok(())
    }

    fn read_array<'a>(&self, reader: &mut Reader<'a>, raw: &mut RawEvent<'a>) -> Result<(), Unreadable> {
        reader.enter_array()?;
        let mut first = true;
        let mut index = 0;
        while reader.element(&mut first)? {
            match self.members.iter().find(|member| member.index == Some(index)) {
                Some(member) => member.read(reader, raw)?,
                None => {
                    reader.value()?;
                }
            }
            index += 1;
        }
        Ok(())
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
    fn read<'a>(&self, reader: &mut Reader<'a>, raw: &mut RawEvent<'a>) -> Result<(), Unreadable> {
        let value = if self.node.members.is_empty() {
            reader.value()?
        } else {
            match reader.token() {
                Some(b'{') => {
                    self.node.read_object(reader, raw)?;
                    Value::Object
                }
                Some(b'[') => {
                    // The array as a whole is read only where something besides its elements is asked for.
                    let mut whole = reader.clone();
                    self.node.read_array(reader, raw)?;
                    if self.targets.is_empty() { Value::Missing } else { whole.value()? }
                }
                _ => reader.value()?,
            }
        };
        for target in &self.targets {
            match *target {
                Target::Field(name) => raw.set(name, value),
                Target::Fallback(name) if raw.get(name).is_empty() => raw.set(name, value),
                Target::Fallback(_) => {}
                Target::Place(rule) => raw.set_place(rule, value),
            }
        }
        Ok(())
    }
}

#[inline]
fn same(name: &str, other: &str, case_folded: bool) -> bool {
    if case_folded { name.eq_ignore_ascii_case(other) } else { name == other }
}

/// One of 64 bits by length and first letter, in either case.
#[inline]
fn filter_bit(name: &[u8]) -> u64 {
    let first = name.first().map_or(0, |byte| usize::from(byte | 0x20));
    1 << ((first ^ (name.len() << 2)) & 63)
}
