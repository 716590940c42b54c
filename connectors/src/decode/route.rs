//! Turns a path into a template, and API, method and template into a route id.
//!
//! A path becomes the first configured template that matches it segment by segment. If none does, numbers, UUIDs and
//! hexadecimal segments of at least 16 digits become `{id}`. Percent-encoding stays as it is. Query, fragment, scheme
//! and host are cut off. A segment that holds a secret of the record becomes `{key}`.
//!
//! Limits: 16 segments of a path without a template; further ones become one `{rest}`. Texts are cut after
//! `limits.text_bytes`, and control characters become U+FFFD. The memo of known routes holds 65,536 routes or 8 MiB of
//! text. Then it starts anew, which only means that definitions are sent again. A definition holds for a day of event
//! time, so the memo has the two days for which each route was announced last.

use hashbrown::HashMap;
use keytide_dataflow::Level;
use keytide_dataflow::model::{Definition, EventTime, RouteId};

use super::bytes::{restored, shown};

/// The route of a call whose route and path aren't known.
pub(super) const UNKNOWN: &str = "-";

const MAX_SEGMENTS: usize = 16;
const HEX_ID_DIGITS: usize = 16;
const MEMO_ROUTES: usize = 65_536;
const MEMO_BYTES: usize = 8 << 20;
/// Shorter secrets are only looked for as whole segments: `v2` in a path is hardly the key `v2`.
const CONTAINED_SECRET_BYTES: usize = 8;

/// The compiled templates of `[routes].templates`, in their order.
#[derive(Debug)]
pub(super) struct RouteTemplates(Vec<RouteTemplate>);

#[derive(Debug)]
struct RouteTemplate {
    text: Box<str>,
    /// `None` matches any segment that isn't empty.
    segments: Vec<Option<Box<str>>>,
}

impl RouteTemplates {
    pub(super) fn new(routes: &keytide_config::Routes) -> Self {
        let compile = |text: &String| RouteTemplate {
            text: text.as_str().into(),
            segments: segments(text)
                .map(|segment| {
                    (!(segment.starts_with('{') && segment.ends_with('}'))).then(|| segment.into())
                })
                .collect(),
        };
        Self(routes.templates.iter().map(compile).collect())
    }

    /// Writes the template that a path becomes into `out`.
    pub(super) fn write(&self, path: &str, out: &mut String) {
        out.clear();
        let path = bare(path);
        if let Some(template) = self.0.iter().find(|template| template.matches(path)) {
            out.push_str(&template.text);
            return;
        }
        for (index, segment) in segments(path).enumerate() {
            out.push('/');
            if index == MAX_SEGMENTS {
                out.push_str("{rest}");
                break;
            }
            out.push_str(if is_id(segment.as_bytes()) { "{id}" } else { segment });
        }
    }
}

impl RouteTemplate {
    fn matches(&self, path: &str) -> bool {
        let mut found = segments(path);
        self.segments.iter().all(|wanted| {
            found.next().is_some_and(|segment| match wanted {
                Some(literal) => **literal == *segment,
                None => !segment.is_empty(),
            })
        }) && found.next().is_none()
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// The path of a request target, without scheme, host, query and fragment.
fn bare(target: &str) -> &str {
    let end = memchr::memchr2(b'?', b'#', target.as_bytes()).unwrap_or(target.len());
    let target = &target[..end];
    if target.starts_with('/') {
        return target;
    }
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    }
}

/// The query of a request target, without the question mark.
pub(super) fn query(target: &str) -> Option<&str> {
    let start = memchr::memchr(b'?', target.as_bytes())? + 1;
    let query = &target[start..];
    Some(memchr::memchr(b'#', query.as_bytes()).map_or(query, |end| &query[..end]))
}

fn is_id(segment: &[u8]) -> bool {
    let number = segment.strip_prefix(b"-").unwrap_or(segment);
    if !number.is_empty() && number.iter().all(u8::is_ascii_digit) {
        return true;
    }
    if segment.len() >= HEX_ID_DIGITS && segment.iter().all(u8::is_ascii_hexdigit) {
        return true;
    }
    segment.len() == 36
        && segment.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Returns whether `text` holds `secret`, as it is or percent-encoded.
pub(crate) fn holds(text: &str, secret: &[u8]) -> bool {
    // Decoding and restoring only shorten.
    if secret.is_empty() || secret.len() > text.len() {
        return false;
    }
    let bytes = restored(text);
    let found = |text: &[u8]| {
        if secret.len() >= CONTAINED_SECRET_BYTES {
            memchr::memmem::find(text, secret).is_some()
        } else {
            text.split(|byte| *byte == b'/').any(|segment| segment == secret)
        }
    };
    found(&bytes) || (bytes.contains(&b'%') && found(&percent_decoded(text)))
}

/// Replaces every segment of `text` that holds `secret` by `{key}`, or the whole text if the secret spans segments.
pub(crate) fn redacted(text: &str, secret: &[u8]) -> String {
    let segments: Vec<&str> =
        text.split('/').map(|segment| if holds(segment, secret) { "{key}" } else { segment }).collect();
    let redacted = segments.join("/");
    if holds(&redacted, secret) { "{key}".to_owned() } else { redacted }
}

/// Decodes `%HH`. Anything that isn't such an escape stays as it is.
pub(super) fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = restored(text);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = &*bytes;
    while let [first, tail @ ..] = rest {
        let (byte, width) = match (first, tail) {
            (b'%', [high, low, ..]) => match (super::escape::hex(*high), super::escape::hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (b'%', 1),
            },
            _ => (*first, 1),
        };
        decoded.push(byte);
        rest = &rest[width..];
    }
    decoded
}

/// Decodes the value of a query argument, with `+` as a space.
pub(super) fn argument_value(text: &str) -> Vec<u8> {
    percent_decoded(&text.replace('+', " "))
}

/// Cuts `text` after at most `limit` bytes, between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Appends `text`, cut after `limit` bytes, with U+FFFD for control characters and for bytes that aren't UTF-8.
pub(super) fn push_clean(text: &str, limit: usize, out: &mut String) {
    // The fold never stops early, so that many bytes are compared at once.
    let is_clean = |text: &str| text.bytes().fold(true, |clean, byte| clean & (0x20..0x7F).contains(&byte));
    if text.len() <= limit && is_clean(text) {
        return out.push_str(text);
    }
    let text = shown(text);
    let text = cut(&text, limit);
    if text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
        out.push_str(text);
    } else {
        out.extend(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }));
    }
}

/// The two periods (starts of days or months) for which something was announced last, the newest first. They are two
/// so that records of two days in turn don't announce it again each time.
#[derive(Clone, Copy)]
pub(super) struct Announced([EventTime; 2]);

impl Announced {
    pub(super) fn new(period: EventTime) -> Self {
        Self([period; 2])
    }

    /// Returns whether it must be announced for a period, and notes that it is.
    #[inline]
    pub(super) fn is_new(&mut self, period: EventTime) -> bool {
        let is_new = !self.0.contains(&period);
        if is_new {
            self.0 = [period, self.0[0]];
        }
        is_new
    }
}

/// Hands out route ids, with their definitions the first time in a day of event time.
#[derive(Default)]
pub(super) struct Memo {
    routes: HashMap<Box<str>, (RouteId, Announced)>,
    bytes: usize,
    /// A buffer for API, method and template, separated by NULs, which none of them holds.
    composite: String,
}

impl Memo {
    /// Returns the id of a route that is met at `time`. Adds its definition, unless it was handed out lately for that
    /// day.
    pub(super) fn id(
        &mut self,
        [api, method, route]: [&str; 3],
        time: EventTime,
        limit: usize,
        definitions: &mut Vec<Definition>,
    ) -> RouteId {
        self.composite.clear();
        push_clean(api, limit, &mut self.composite);
        let api_end = self.composite.len();
        self.composite.push('\0');
        self.composite.push_str(method);
        self.composite.push('\0');
        let route_start = self.composite.len();
        push_clean(route, limit, &mut self.composite);
        let day = Level::Day.start(time);
        let (api, route) = (&self.composite[..api_end], &self.composite[route_start..]);
        let definition =
            |id| Definition::Route { id, day, api: api.into(), method: method.into(), route: route.into() };
        if let Some((id, announced)) = self.routes.get_mut(self.composite.as_str()) {
            if announced.is_new(day) {
                definitions.push(definition(*id));
            }
            return *id;
        }
        let id = RouteId::new(api, method, route);
        definitions.push(definition(id));
        if self.routes.len() >= MEMO_ROUTES || self.bytes + self.composite.len() > MEMO_BYTES {
            self.routes.clear();
            self.bytes = 0;
        }
        self.bytes += self.composite.len();
        self.routes.insert(self.composite.as_str().into(), (id, Announced::new(day)));
        id
    }
}

/// Returns the method as it is metered: one of the standard ones, `OTHER`, or `-` if it isn't known. A caller can send
/// any token, so nothing else may become part of a route.
pub(super) fn method(text: Option<&str>) -> &'static str {
    const METHODS: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    match text {
        None => UNKNOWN,
        Some("GET") => "GET",
        Some("POST") => "POST",
        Some(text) => METHODS.into_iter().find(|known| known.eq_ignore_ascii_case(text)).unwrap_or("OTHER"),
    }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::time::DAY_MS;
    use proptest::prelude::*;

    use super::*;

    fn template(templates: &[&str], path: &str) -> String {
        let routes =
            keytide_config::Routes { templates: templates.iter().map(ToString::to_string).collect() };
        let mut out = String::new();
        RouteTemplates::new(&routes).write(path, &mut out);
        out
    }

    #[test]
    fn built_in_rule() {
        for (path, expected) in [
            ("/v2/orders/48151623?expand=items#x", "/v2/orders/{id}"),
            ("/", "/"),
            ("", "/"),
            ("?q=1", "/"),
            ("orders/1", "/orders/{id}"),
            ("https://user:secret@api.example.com:9443/a/1?x=/y", "/a/{id}"),
            ("https://api.example.com", "/"),
            ("/go?to=https://x/y", "/go"),
            ("/-5/1.5/v2", "/{id}/1.5/v2"),
            ("/6b1f7c0e-7d11-4b7e-9a64-2f5c3f0e8a10/x", "/{id}/x"),
            ("/6b1f7c0e-7d11-4b7e-9a64-2f5c3f0e8a1g", "/6b1f7c0e-7d11-4b7e-9a64-2f5c3f0e8a1g"),
            ("/deadbeefdeadbeef", "/{id}"),
            ("/deadbeefdeadbee", "/deadbeefdeadbee"),
            ("//a//", "//a//"),
            ("/%2e%2E/%20", "/%2e%2E/%20"),
            ("/a-", "/a-"),
        ] {
            assert_eq!(template(&[], path), expected, "{path}");
        }
        let deep = "/a".repeat(16);
        assert_eq!(template(&[], &deep), deep);
        assert_eq!(template(&[], &"/a".repeat(50)), deep + "/{rest}");
    }

    #[test]
    fn templates_in_order() {
        let templates = ["/orders/new", "/orders/{id}", "/orders/{id}/items/{item}", "/files/{a}.txt"];
        for (path, expected) in [
            ("/orders/new", "/orders/new"),
            ("/orders/abc?x=1", "/orders/{id}"),
            ("/orders/", "/orders/"),
            ("/orders/1/items/z", "/orders/{id}/items/{item}"),
            ("/orders/1/items", "/orders/{id}/items"),
            ("/files/{a}.txt", "/files/{a}.txt"),
            ("/files/b.txt", "/files/b.txt"),
        ] {
            assert_eq!(template(&templates, path), expected, "{path}");
        }
    }

    #[test]
    fn secrets_are_redacted() {
        for (text, secret, expected) in [
            ("/keys/kt_demo_1234/x", "kt_demo_1234", "/keys/{key}/x"),
            ("/bot123:kt_demo_1234/x", "kt_demo_1234", "/{key}/x"),
            ("/keys/kt%5Fdemo_1234/x", "kt_demo_1234", "/keys/{key}/x"),
            ("/v2/abc/v21", "v2", "/{key}/abc/v21"),
            ("/ab/cdefgh/i", "b/cdefgh", "{key}"),
            ("/ab%2Fcdefgh/i", "b/cdefgh", "/{key}/i"),
        ] {
            assert!(holds(text, secret.as_bytes()), "{text}");
            assert_eq!(redacted(text, secret.as_bytes()), expected);
        }
        assert!(!holds("/v21", b"v2"));
        assert!(!holds("/short", b"a-much-longer-key"));
        assert!(!holds("/x//y", b""));
    }

    #[test]
    fn queries() {
        assert_eq!(query("/a?b=1#c?d"), Some("b=1"));
        assert_eq!(query("/a?b?c"), Some("b?c"));
        assert_eq!(query("/a"), None);
        assert_eq!(percent_decoded("a%2Fb%zz%4"), b"a/b%zz%4");
        assert_eq!(percent_decoded("%FF%00"), [0xFF, 0]);
    }

    #[test]
    fn methods_are_bounded() {
        assert_eq!(method(Some("get")), "GET");
        assert_eq!(method(Some("PATCH")), "PATCH");
        assert_eq!(method(Some("GET ")), "OTHER");
        assert_eq!(method(Some("\u{16}\u{3}")), "OTHER");
        assert_eq!(method(None), "-");
    }

    #[test]
    fn a_definition_is_sent_once_until_the_memo_is_full() {
        let mut memo = Memo::default();
        let mut definitions = Vec::new();
        let first = memo.id(["api", "GET", "/a\u{7}\u{9b}"], DAY_MS, 512, &mut definitions);
        assert_eq!(memo.id(["api", "GET", "/a\u{7}\u{9b}"], 2 * DAY_MS - 1, 512, &mut definitions), first);
        let expected = Definition::Route {
            id: RouteId::new("api", "GET", "/a\u{fffd}\u{fffd}"),
            day: DAY_MS,
            api: "api".into(),
            method: "GET".into(),
            route: "/a\u{fffd}\u{fffd}".into(),
        };
        assert_eq!(definitions, std::slice::from_ref(&expected));
        for route in 0..MEMO_ROUTES {
            memo.id(["", "GET", &route.to_string()], DAY_MS, 512, &mut definitions);
        }
        assert!(memo.routes.len() <= MEMO_ROUTES);
        assert_eq!(memo.id(["api", "GET", "/a\u{7}\u{9b}"], DAY_MS, 512, &mut definitions), first);
        assert_eq!(definitions.iter().filter(|definition| **definition == expected).count(), 2);
        let before = definitions.len();
        for route in 0..20_000 {
            memo.id(["", "GET", &format!("{route:0>600}")], DAY_MS, 512, &mut definitions);
            memo.id(["", "GET", &format!("{route:0<512}")], DAY_MS, 512, &mut definitions);
        }
        assert!(memo.bytes <= MEMO_BYTES && definitions.len() > before);
    }

    #[test]
    fn a_definition_is_sent_anew_for_each_day_but_not_for_two_days_in_turn() {
        let mut memo = Memo::default();
        let mut sent = |day: u64| {
            let mut definitions = Vec::new();
            memo.id(["", "GET", "/"], day * DAY_MS + 5, 512, &mut definitions);
            let days = definitions.into_iter().map(|definition| match definition {
                Definition::Route { day, .. } => day / DAY_MS,
                other => panic!("not a route: {other:?}"),
            });
            days.collect::<Vec<_>>()
        };
        let days = [5, 5, 6, 5, 6, 5, 2, 6, 7];
        let expected: [&[u64]; 9] = [&[5], &[], &[6], &[], &[], &[], &[2], &[], &[7]];
        assert_eq!(days.map(&mut sent), expected);
    }

    proptest! {
        #[test]
        fn no_text_survives_its_redaction(path in "[ab/%2F]{0,20}", secret in "[ab/]{1,9}") {
            let redacted = redacted(&path, secret.as_bytes());
            prop_assert!(!holds(&redacted, secret.as_bytes()), "{} {}", path, redacted);
        }

        #[test]
        fn a_template_has_no_query(path in any::<String>()) {
            let template = template(&[], &path);
            prop_assert!(template.starts_with('/') && !template.contains(['?', '#']));
        }
    }
}
