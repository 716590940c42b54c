//! The part of Amazon API Gateway that is about API keys.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Asked;
use super::failing::Standin;

/// Amazon API Gateway with its API keys.
pub(crate) struct AwsStandin {
    /// The id of the access key that may ask.
    pub(crate) access_key_id: &'static str,
    pub(crate) region: &'static str,
    /// The values of API keys, and whether they are enabled, by id.
    pub(crate) keys: BTreeMap<String, (String, bool)>,
}

impl Standin for AwsStandin {
    fn act(&mut self, asked: &Asked) -> (u16, String) {
        let message = |status: u16, text: &str| (status, json!({ "message": text }).to_string());
        let scope = format!("/{}/apigateway/aws4_request, SignedHeaders=host;x-amz-date", self.region);
        let starts = format!("AWS4-HMAC-SHA256 Credential={}/", self.access_key_id);
        let is_signed = asked
            .header("authorization")
            .is_some_and(|shown| shown.starts_with(&starts) && shown.contains(&scope));
        if !is_signed || asked.header("x-amz-date").is_none() {
            return message(403, "The security token included in the request is invalid.");
        }
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let Some(id) = path.strip_prefix("/apikeys/") else {
            return message(403, "Missing Authentication Token");
        };
        let Some((value, enabled)) = self.keys.get_mut(id) else {
            return message(404, "Invalid API Key identifier specified");
        };
        // The value is shown to who asks for it, and never after a change.
        let shown = |value: Option<&str>, enabled: bool| {
            let mut shown =
                json!({ "id": id, "name": "n", "enabled": enabled, "createdDate": 1, "stageKeys": [] });
            if let Some(value) = value {
                shown["value"] = json!(value);
            }
            shown.to_string()
        };
        match &*asked.method {
            "GET" => (200, shown((query == "includeValue=true").then_some(&**value), *enabled)),
            "PATCH" => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                for operation in body["patchOperations"].as_array().unwrap() {
                    // Values of operations are texts, also of what is true or false.
                    let is_known = operation["op"] == "replace" && operation["path"] == "/enabled";
                    match operation["value"].as_str().and_then(|value| value.parse().ok()) {
                        Some(value) if is_known => *enabled = value,
                        _ => return message(400, "Invalid patch operation specified"),
                    }
                }
                (200, shown(None, *enabled))
            }
            "DELETE" => {
                self.keys.remove(id);
                (202, String::new())
            }
            _ => message(403, "Missing Authentication Token"),
        }
    }

    fn keys(&self) -> Vec<String> {
        self.keys.values().map(|(value, enabled)| format!("{value} {enabled}")).collect()
    }

    fn error(&self, status: u16) -> Option<&'static str> {
        match status {
            400 => Some("BadRequestException"),
            401 | 403 => Some("UnrecognizedClientException"),
            404 => Some("NotFoundException"),
            409 => Some("ConflictException"),
            429 => Some(
                "TooManyRequestsException:http://internal.amazon.com/coral/com.amazonaws.backplane.controlplane/",
            ),
            _ => None,
        }
    }
}
