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
use serde::Deserialize;
use serde_json::value::RawValue;

use super::RequestedAction;
use super::admin::{Dialect, segment};
use super::json::{text_of, write_text};
use crate::exchange::SecretBytes;

/// The dialect of the Admin API of Kong.
pub(super) struct Kong;

/// The part of a credential that is read.
#[derive(Deserialize)]
struct KongCredential<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
}

impl Dialect for Kong {
    const TOKEN: &'static str = "Kong-Admin-Token";

    fn path(&self, action: &RequestedAction) -> Result<String, String> {
        let consumer = segment(&action.consumer, "consumer")?;
        let credential = segment(&action.credential, "credential")?;
        Ok(format!("/consumers/{consumer}/key-auth/{credential}"))
    }

    fn key(&self, _: &RequestedAction, body: &[u8]) -> Option<SecretBytes> {
        let credential: KongCredential<'_> = serde_json::from_slice(body).ok()?;
        text_of(credential.key)
    }

    fn write(&self, _: &RequestedAction, _: &[u8], key: &[u8]) -> Option<(Method, SecretBytes)> {
        let mut body = SecretBytes::with_capacity(key.len() + 64);
        body.push(b"{\"key\":");
        write_text(&mut body, key)?;
        body.push(b"}");
        Some((Method::PATCH, body))
    }
}
