//! Credentials of APISIX' plugin `key-auth`, by the Admin API.
//!
//! | | |
//! |---|---|
//! | look | `GET /apisix/admin/consumers/CONSUMER/credentials/CREDENTIAL` |
//! | suspend, reinstate | `PUT` of the whole object, with another key |
//! | revoke | `DELETE` |
//!
//! Without a credential in the table the key is in the consumer's own plugins, and the same is done with
//! `/apisix/admin/consumers/CONSUMER`. Such a key can't be revoked, as the whole consumer would be deleted.
//!
//! A `PUT` replaces all, and refuses the members `create_time` and `update_time` that a `GET` shows. There is no
//! compare-and-set, so a change by somebody else between the look and the write is lost. `_meta.disable` on a credential
//! is accepted and blocks nothing, so it isn't used.

use std::collections::BTreeMap;

use hyper::Method;
use keytide_config::Secret;
use keytide_dataflow::Action;
use serde_json::value::RawValue;

use super::RequestedAction;
use super::admin::{AdminRequest, Dialect, segment};
use super::json::{text_of, write_text};
use super::mask::{self, KeyChange, SeenKey};
use crate::exchange::SecretBytes;

/// The dialect of the Admin API of APISIX.
pub(super) struct Apisix {
    pub(super) token: Option<Secret>,
}

/// The members of an object, each as it was written.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The members that a `PUT` refuses.
const REFUSED: [&str; 2] = ["create_time", "update_time"];
/// The members on the way to the key.
const WAY: [&str; 3] = ["plugins", "key-auth", "key"];

fn members(object: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(object.get()).ok()
}

/// Returns the object in the body of an answer.
fn value(body: &[u8]) -> Option<&RawValue> {
    let body: Members<'_> = serde_json::from_slice(body).ok()?;
    body.get("value").copied()
}

impl Dialect for Apisix {
    fn path(&self, action: &RequestedAction) -> Result<String, String> {
        let consumer = segment(&action.consumer, "consumer")?;
        if action.credential.is_empty() {
            return match action.action {
                Action::Revoke => {
                    Err("the key is in the consumer's own plugins, and revoking it would delete the \
                                       consumer: it stays suspended"
                        .to_owned())
                }
                Action::Suspend | Action::Reinstate => Ok(format!("/apisix/admin/consumers/{consumer}")),
            };
        }
        let credential = segment(&action.credential, "credential")?;
        Ok(format!("/apisix/admin/consumers/{consumer}/credentials/{credential}"))
    }

    fn headers(&self, _: &AdminRequest<'_>) -> Result<Vec<(&'static str, String)>, String> {
        Ok(self.token.iter().map(|token| ("X-API-KEY", token.reveal().to_owned())).collect())
    }

    fn key(&self, body: &[u8]) -> Option<SeenKey> {
        let mut at = value(body)?;
        for name in WAY {
            at = members(at)?.get(name).copied()?;
        }
        text_of(at).as_ref().map(mask::seen)
    }

    fn write(&self, before: &[u8], change: &KeyChange<'_>) -> Option<(Method, SecretBytes)> {
        let key = mask::changed(change);
        let key = key.as_ref();
        // The key is in it once, and may get longer by a mask and its escapes.
        let mut body = SecretBytes::with_capacity(before.len() + 6 * key.len() + 64);
        rewrite(&mut body, value(before)?, &WAY, key)?;
        Some((Method::PUT, body))
    }
}

/// Writes an object with another key at the end of `way`, and without the members that a `PUT` refuses at its top.
fn rewrite(out: &mut SecretBytes, object: &RawValue, way: &[&str], key: &[u8]) -> Option<()> {
    let (first, rest) = way.split_first()?;
    let is_top = way.len() == WAY.len();
    let members = members(object)?;
    let mut separator = &b"{"[..];
    for (name, member) in members {
        if is_top && REFUSED.contains(&&*name) {
            continue;
        }
        out.push(separator);
        separator = b",";
        write_text(out, name.as_bytes())?;
        out.push(b":");
        match (name == *first, rest.is_empty()) {
            (true, true) => write_text(out, key)?,
            (true, false) => rewrite(out, member, rest, key)?,
            (false, _) => out.push(member.get().as_bytes()),
        }
    }
    out.push(if separator == b"{" { b"{}" } else { b"}" });
    Some(())
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::KeyId;
    use keytide_dataflow::{ActionId, IncidentId};
    use serde_json::{Value, json};

    use super::*;

    fn action(action: Action, credential: &str) -> RequestedAction {
        RequestedAction {
            id: ActionId(1),
            request: 1,
            action,
            key: KeyId(1),
            key_id: String::new(),
            incident: IncidentId(1),
            why: String::new(),
            consumer: "a/b".to_owned(),
            credential: credential.to_owned(),
            undo: None,
        }
    }

    #[test]
    fn a_credential_is_written_back_as_it_was_but_for_its_key() {
        let text = r#"{"key":"/apisix/consumers/jack/credentials/c1","modifiedIndex":7,"value":{"id":"c1","update_time":2,
            "plugins":{"limit-count":{"count":1.50,"key":"other"},"key-auth":{"_meta":{"x":[1,{}]},"key":"a\"b\u00e9"}},
            "create_time":1,"desc":"d","labels":{}}}"#;
        let apisix = Apisix { token: None };
        let seen = apisix.key(text.as_bytes()).unwrap();
        assert_eq!((seen.raw.as_ref(), seen.is_suspended), ("a\"b\u{e9}".as_bytes(), false));
        let change = KeyChange { raw: b"new\\\"key", suspends: false, random: [7; 16] };
        let (method, body) = apisix.write(text.as_bytes(), &change).unwrap();
        assert_eq!(method, Method::PUT);
        let expected = json!({
            "id": "c1",
            "plugins": {
                "limit-count": { "count": 1.5, "key": "other" },
                "key-auth": { "_meta": { "x": [1, {}] }, "key": "new\\\"key" },
            },
            "desc": "d",
            "labels": {},
        });
        assert_eq!(serde_json::from_slice::<Value>(body.as_ref()).unwrap(), expected);
        for bad in ["", "{}", "[]", r#"{"value":1}"#, r#"{"value":{"plugins":{"key-auth":{"key":7}}}}"#] {
            assert!(apisix.key(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_are_segments_of_a_path() {
        let apisix = Apisix { token: None };
        let path = |credential| apisix.path(&action(Action::Suspend, credential));
        assert_eq!(path("c 1").unwrap(), "/apisix/admin/consumers/a%2Fb/credentials/c%201");
        assert_eq!(path("").unwrap(), "/apisix/admin/consumers/a%2Fb");
        assert!(path("..").is_err());
        assert!(apisix.path(&action(Action::Revoke, "")).unwrap_err().contains("it stays suspended"));
    }
}
