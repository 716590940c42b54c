//! The part of Kong's Admin API that is about credentials of `key-auth`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Asked;
use super::failing::Standin;

/// The state of a Kong: its credentials.
#[derive(Default)]
pub(crate) struct KongStandin {
    /// The token that the Admin API wants.
    pub(crate) token: Option<&'static str>,
    /// True if there is no database, so that nothing can be changed.
    pub(crate) is_read_only: bool,
    /// Keys by consumer and credential.
    pub(crate) credentials: BTreeMap<(String, String), String>,
}

impl Standin for KongStandin {
    fn act(&mut self, asked: &Asked) -> (u16, String) {
        let message = |status: u16, text: &str| (status, json!({ "message": text }).to_string());
        if self.token.is_some_and(|token| asked.header("kong-admin-token") != Some(token)) {
            return message(401, "Invalid credentials");
        }
        let segments: Vec<&str> = asked.target.split('/').collect();
        let ["", "consumers", consumer, "key-auth", id] = segments[..] else {
            return message(404, "Not found");
        };
        let place = (consumer.to_owned(), id.to_owned());
        if asked.method != "GET" && self.is_read_only {
            return message(405, "cannot create, update or delete entities when not using a database");
        }
        let shown = |key: &str| {
            json!({ "id": id, "key": key, "consumer": { "id": consumer }, "created_at": 1, "ttl": null, "tags": null })
                .to_string()
        };
        match &*asked.method {
            "DELETE" => match self.credentials.remove(&place) {
                Some(_) => (204, String::new()),
                None => message(404, "Not found"),
            },
            "GET" => match self.credentials.get(&place) {
                Some(key) => (200, shown(key)),
                None => message(404, "Not found"),
            },
            "PATCH" => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                let key = body["key"].as_str().unwrap();
                if self.credentials.iter().any(|(other, of)| *other != place && of == key) {
                    return message(409, "UNIQUE violation detected on '{key=...}'");
                }
                match self.credentials.get_mut(&place) {
                    Some(found) => {
                        key.clone_into(found);
                        (200, shown(key))
                    }
                    None => message(404, "Not found"),
                }
            }
            _ => message(405, "Method not allowed"),
        }
    }

    fn keys(&self) -> Vec<String> {
        self.credentials.values().cloned().collect()
    }
}
