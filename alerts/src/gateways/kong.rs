//! Credentials of Kong's plugin `key-auth`, by the Admin API.
//!
//! | | |
//! |---|---|
//! | look | `GET /consumers/CONSUMER/key-auth/CREDENTIAL` |
//! | suspend, reinstate | `PATCH` with `{"key":"..."}` |
//! | revoke | `DELETE` |
//!
//! The key stands in no path: `CREDENTIAL` is the credential's id. Without a database, and on a data plane, Kong answers
//! 405. Other nodes follow within their `db_update_frequency`, which is 5 s by default.

use hyper::Method;
use keytide_config::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::RequestedAction;
use super::admin::{AdminRequest, Dialect, segment};
use super::json::{text_of, write_text};
use super::mask::{self, KeyChange, SeenKey};
use crate::exchange::SecretBytes;

/// The dialect of the Admin API of Kong.
pub(super) struct Kong {
    pub(super) token: Option<Secret>,
}

/// The part of a credential that is read.
#[derive(Deserialize)]
struct KongCredential<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
}

impl Dialect for Kong {
    fn path(&self, action: &RequestedAction) -> Result<String, String> {
        let consumer = segment(&action.consumer, "consumer")?;
        let credential = segment(&action.credential, "credential")?;
        Ok(format!("/consumers/{consumer}/key-auth/{credential}"))
    }

    fn headers(&self, _: &AdminRequest<'_>) -> Result<Vec<(&'static str, String)>, String> {
        Ok(self.token.iter().map(|token| ("Kong-Admin-Token", token.reveal().to_owned())).collect())
    }

    fn key(&self, body: &[u8]) -> Option<SeenKey> {
        let credential: KongCredential<'_> = serde_json::from_slice(body).ok()?;
        text_of(credential.key).as_ref().map(mask::seen)
    }

    fn write(&self, _: &[u8], change: &KeyChange<'_>) -> Option<(Method, SecretBytes)> {
        let key = mask::changed(change);
        let mut body = SecretBytes::with_capacity(key.as_ref().len() + 64);
        body.push(b"{\"key\":");
        write_text(&mut body, key.as_ref())?;
        body.push(b"}");
        Some((Method::PATCH, body))
    }
}
