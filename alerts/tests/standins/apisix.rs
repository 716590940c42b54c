//! The part of APISIX' Admin API that is about consumers and their credentials.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Asked;
use super::failing::Standin;

/// APISIX with its consumers and credentials.
pub(crate) struct ApisixStandin {
    /// The key of the Admin API.
    pub(crate) token: &'static str,
    /// Objects by the path below `/apisix/admin`.
    pub(crate) objects: BTreeMap<String, Value>,
}

impl ApisixStandin {
    /// Returns the key of an object.
    pub(crate) fn key(&self, path: &str) -> Option<&str> {
        self.objects.get(path)?["plugins"]["key-auth"]["key"].as_str()
    }
}

impl Standin for ApisixStandin {
    fn act(&mut self, asked: &Asked) -> (u16, String) {
        let error = |status: u16, text: &str| (status, json!({ "error_msg": text }).to_string());
        if asked.header("x-api-key") != Some(self.token) {
            return error(401, "failed to check token");
        }
        let Some(path) = asked.target.strip_prefix("/apisix/admin").map(str::to_owned) else {
            return error(404, "not found");
        };
        let segments: Vec<&str> = path.split('/').collect();
        let is_credential = match segments[..] {
            ["", "consumers", consumer, "credentials", _] => {
                if !self.objects.contains_key(&format!("/consumers/{consumer}")) {
                    return error(404, "consumer not found");
                }
                true
            }
            ["", "consumers", _] => false,
            _ => return error(404, "not found"),
        };
        let shown = |value: &Value| {
            let mut value = value.clone();
            value["create_time"] = json!(1);
            value["update_time"] = json!(2);
            json!({ "key": format!("/apisix{path}"), "value": value, "createdIndex": 1, "modifiedIndex": 2 })
                .to_string()
        };
        match &*asked.method {
            "GET" => match self.objects.get(&path) {
                Some(value) => (200, shown(value)),
                None => error(404, "Key not found"),
            },
            "PUT" => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                if ["create_time", "update_time"].iter().any(|name| body.get(name).is_some()) {
                    return error(400, "the property is forbidden: create_time");
                }
                let is_whole = if is_credential { body.get("plugins") } else { body.get("username") };
                if is_whole.is_none() {
                    return error(400, "invalid configuration");
                }
                let answered = shown(&body);
                let status = if self.objects.insert(path, body).is_some() { 200 } else { 201 };
                (status, answered)
            }
            "DELETE" => match self.objects.remove(&path) {
                Some(_) => (200, json!({ "deleted": "1" }).to_string()),
                None => error(404, "Key not found"),
            },
            _ => error(405, "not supported `PATCH` operation"),
        }
    }

    fn keys(&self) -> Vec<String> {
        self.objects.values().map(ToString::to_string).collect()
    }
}
