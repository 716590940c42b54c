//! What a caller chooses: any bytes that a server takes, with what breaks out of texts, forges members and hides keys
//! among them.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::writers::Keys;

/// How every key begins. It is searched for in all that comes out.
pub(crate) const KEY: &str = "kt_demo_5c1f0d2ab7e94c3e";
/// A key that callers write and that made no call.
pub(crate) const VICTIM: &str = "kt_demo_victim_4fd1c0aa17b2";
/// Stands for the call's own key in texts.
const OWN: &[u8] = b"\0own";

/// All that is the caller's choice.
#[derive(Clone)]
pub(crate) struct Caller {
    /// Begins with a slash, holds no question mark, blank or control character.
    pub(crate) path: Vec<u8>,
    /// Query arguments as they stand in the query; none is named `apikey` unless `arguments_of_key` is set.
    pub(crate) arguments: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Repeated arguments `apikey`, beside the key in the header.
    pub(crate) arguments_of_key: usize,
    /// Further headers.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) agent: Vec<u8>,
    pub(crate) referer: Vec<u8>,
    pub(crate) forwarded: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) method: String,
    /// What follows the key's beginning.
    pub(crate) key_end: Vec<u8>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &[u8]| format!("b\"{}\"", text.escape_ascii());
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
        f.debug_struct("Caller")
            .field("target", &text(&self.target()))
            .field("headers", &headers)
            .field("agent", &text(&self.agent))
            .field("referer", &text(&self.referer))
            .field("forwarded", &text(&self.forwarded))
            .field("user", &text(&self.user))
            .field("id", &text(&self.id))
            .field("body", &text(&self.body))
            .field("method", &self.method)
            .field("key", &text(&self.key()))
            .finish()
    }
}

/// A piece of a text.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let constant: Vec<&[u8]> = vec![
        b"\"", b"\\", b"\\\"", b"\\x22", b"\\xff", b"\\u0022", b"\\u0000", b"\\ud800", b"\\u12", b"\\", b"\\042", b"#22", b"%00",
        b"%FF", b"%22", b"%0A", b"%", b"&", b"=", b"+", b";", b"{", b"}", b"[", b"]", b",", b":", b"|", b"'", b"<!--", b"-",
        b"null", b"true", b"1e999", b" ", b"  ", b"\t", b"\x01", b"\x1b[31m", b"\x7f", b"/", b"/../", b"\xff", b"\xc3", b"\xc3\xa9",
        b"\xed\xa0\x80", b"\xf0\x9f\x8e\x89", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"apikey", b"\"},{\"", b"\"}{\"", b"\"}],\"k\":[{\"",
        b"\"},\"", b"\" 200 5 \"-\" \"-\"", b" [20/Nov/2025:12:44:15 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"",
        // Members that hide what stands behind them, as long as another text closes them.
        b"x\",\"z\":{\"a\":\"", b"x\"},\"z\":\"", b"x\",\"z\":[\"", b"x\"],\"z\":\"",
        b"x\",\"status\":\"000\",\"msec\":\"1000000000.001\",\"requestTimeEpoch\":\"1\",\"start_time\":1,\"z\":\"",
    ];
    let forged = |name: &str| format!("x\",\"{name}\":\"{VICTIM}\",\"z\":\"1").into_bytes();
    let members =
        ["apikey", "http_apikey", "apiKeyId", "key", "apiKey", "subject", "http.request.header.apikey"];
    let forged: Vec<Vec<u8>> = members.into_iter().map(forged).collect();
    prop_oneof![
        6 => select(constant).prop_map(<[u8]>::to_vec),
        2 => select(forged),
        2 => vec(any::<u8>(), 0..8),
        1 => Just(OWN.to_vec()),
        1 => Just(VICTIM.as_bytes().to_vec()),
        1 => (select(vec![b'a', b'"', b'\\', 0xff, b'/', b'&', b' ']), 0_usize..8_000).prop_map(|(byte, n)| vec![byte; n]),
    ]
}

/// A text of a header: no line ends, no NUL but those that mark the key.
fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(piece(), 0..6).prop_map(|pieces| {
        let mut text = Vec::new();
        for piece in pieces {
            if piece == OWN {
                text.extend_from_slice(&piece);
            } else {
                text.extend(piece.into_iter().filter(|byte| !matches!(byte, 0 | b'\r' | b'\n')));
            }
        }
        // A header's value has no blanks around it.
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = text.iter().take_while(|byte| is_blank(byte)).count();
        let end = text.len() - text[start..].iter().rev().take_while(|byte| is_blank(byte)).count();
        text[start..end].to_vec()
    })
}

/// A part of a request's target.
fn target(excluded: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    text().prop_map(move |text| {
        let mut marked = text.clone();
        marked.retain(|byte| *byte == 0 || (*byte > b' ' && *byte != 0x7f && !excluded.contains(byte)));
        marked
    })
}

/// A caller, whose key holds only what a writer shows as it is.
pub(crate) fn caller(keys: Keys) -> impl Strategy<Value = Caller> {
    let name = "[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,12}";
    let arguments = prop_oneof![
        4 => vec((target(b"&?#="), prop::option::of(target(b"&?#"))), 0..5),
        1 => vec((target(b"&?#="), prop::option::of(Just(b"1".to_vec()))), 0..300),
    ];
    let headers = prop_oneof![4 => vec((name, text()), 0..4), 1 => vec((name, Just(b"1".to_vec())), 0..100)];
    let repeated = prop_oneof![4 => Just(0), 1 => 1_usize..300];
    let texts = (text(), text(), text(), text(), text());
    let key_end = prop_oneof![
        2 => Just(Vec::new()),
        1 => text().prop_map(|mut text| {
            text.retain(|byte| *byte != 0);
            text.truncate(200);
            text
        }),
        1 => vec(0x80_u8..=0xff, 1..4),
    ];
    let body = prop_oneof![
        3 => text(),
        1 => vec(any::<u8>(), 0..200),
        1 => (0_usize..3_000).prop_map(|depth| [b"{\"a\":".repeat(depth), b"[".repeat(depth)].concat()),
    ];
    let method = select(vec!["GET", "POST", "PROPFIND", "FOO", "M-SEARCH"]);
    (target(b"?#"), arguments, repeated, headers, texts, key_end, body, method).prop_map(
        move |(path, arguments, arguments_of_key, headers, texts, key_end, body, method)| {
            let (agent, referer, forwarded, user, id) = texts;
            let is_taken = |name: &String| {
                let name = name.to_ascii_lowercase().replace('_', "-");
                ["apikey", "x-forwarded-for", "user-agent", "host", "x-request-id"].contains(&&*name)
            };
            let mut key_end = key_end.trim_ascii_end().to_vec();
            match keys {
                Keys::Bytes => {}
                Keys::Texts => {
                    key_end = String::from_utf8_lossy(&key_end).replace('\u{fffd}', "ü").into_bytes();
                }
                Keys::Ids => key_end.retain(u8::is_ascii_alphanumeric),
            }
            let key = [KEY.as_bytes(), &key_end].concat();
            let own = |text: Vec<u8>| {
                let mut text: Vec<u8> = text;
                while let Some(at) = text.windows(OWN.len()).position(|window| window == OWN) {
                    text.splice(at..at + OWN.len(), key.iter().copied());
                }
                text.retain(|byte| *byte != 0);
                text
            };
            // In a target, a key is written with `%`.
            let encoded = encoded(&key);
            let own_encoded = |text: Vec<u8>| {
                let mut text = text;
                while let Some(at) = text.windows(OWN.len()).position(|window| window == OWN) {
                    text.splice(at..at + OWN.len(), encoded.iter().copied());
                }
                text.retain(|byte| *byte != 0);
                text
            };
            let mut arguments: Vec<_> = arguments
                .into_iter()
                .map(|(name, value)| (own_encoded(name), value.map(own_encoded)))
                .filter(|(name, _)| name != b"apikey")
                .collect();
            arguments.truncate(300);
            Caller {
                path: [b"/".to_vec(), own_encoded(path)].concat(),
                arguments,
                arguments_of_key,
                headers: headers
                    .into_iter()
                    .filter(|(name, _)| !is_taken(name))
                    .map(|(name, value)| (name, own(value)))
                    .collect(),
                agent: own(agent),
                referer: own(referer),
                forwarded: own(forwarded),
                user: own(user),
                id: own(id),
                body,
                method: method.to_owned(),
                key_end,
            }
        },
    )
}

/// Percent-encoded, but for letters, digits and `_`.
pub(crate) fn encoded(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|byte| match byte {
            b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => vec![*byte],
            _ => format!("%{byte:02X}").into_bytes(),
        })
        .collect()
}

/// What percent-encoding stands for, as lua-nginx-module reads it: `+` is a space, what is no escape stands for itself.
pub(crate) fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        let escape = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, escape.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))) {
            (b'%', Some(digits)) => {
                decoded.extend(u8::from_str_radix(digits, 16));
                rest = &behind[2..];
            }
            (b'+', _) => {
                decoded.push(b' ');
                rest = behind;
            }
            _ => {
                decoded.push(*first);
                rest = behind;
            }
        }
    }
    decoded
}

impl Caller {
    /// Nothing odd.
    pub(crate) fn plain() -> Self {
        Self {
            path: b"/v2/orders/17".to_vec(),
            arguments: Vec::new(),
            arguments_of_key: 0,
            headers: Vec::new(),
            agent: Vec::new(),
            referer: Vec::new(),
            forwarded: Vec::new(),
            user: Vec::new(),
            id: Vec::new(),
            body: Vec::new(),
            method: "GET".to_owned(),
            key_end: Vec::new(),
        }
    }

    /// The key of the call.
    pub(crate) fn key(&self) -> Vec<u8> {
        [KEY.as_bytes(), &self.key_end].concat()
    }

    /// All arguments, as they stand in the query.
    pub(crate) fn query(&self) -> Vec<u8> {
        let pair = |(name, value): &(Vec<u8>, Option<Vec<u8>>)| match value {
            Some(value) => [name, &b"="[..], value].concat(),
            None => name.clone(),
        };
        let own = self.arguments.iter().map(pair);
        let of_key = (0..self.arguments_of_key).map(|n| format!("apikey={n}").into_bytes());
        own.chain(of_key).collect::<Vec<_>>().join(&b'&')
    }

    /// Path and query.
    pub(crate) fn target(&self) -> Vec<u8> {
        match self.query() {
            query if query.is_empty() => self.path.clone(),
            query => [&self.path, &b"?"[..], &query].concat(),
        }
    }
}
