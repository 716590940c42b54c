//! The guide that alerts give their readers: `link` and `[alerts.steps]`.
//!
//! Limits: 2,048 bytes of a link, 300 bytes of a step, 10 steps a list.

use super::prelude::*;

/// Bytes of a link, at most.
const MAX_LINK_BYTES: usize = 2_048;
/// Bytes of a step, at most.
const MAX_STEP_BYTES: usize = 300;
const MAX_STEPS: usize = 10;
/// The names in braces that a step may have.
const IN_STEPS: [&str; 4] = ["key_id", "incident_id", "subscription", "customer"];

section! {
    /// The section `[alerts.steps]`: what readers of a mail shall do, in order.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Steps, RawSteps {
        /// The steps for the security team. Without them mails have steps of their own.
        other security: Vec<String> = security(List<StepText>, AtMost(MAX_STEPS, "steps")) or Vec::new();
        /// The steps for owners of keys. Without them mails have steps of their own.
        other owner: Vec<String> = owner(List<StepText>, AtMost(MAX_STEPS, "steps")) or Vec::new();
    }
}

/// The address of an incident in a tool of the reader's, with `{incident_id}` or `{key_id}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTemplate(String);

impl LinkTemplate {
    /// Returns the template of a text; `None` if it is no http or https address, or has no name in braces behind its
    /// host.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next()?;
        let is_address = matches!(scheme, "http" | "https")
            && !host.is_empty()
            && !host.contains(['{', '}', '@'])
            && text.len() <= MAX_LINK_BYTES
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\^`|".contains(&byte));
        let names = placeholders(text)?;
        let known = names.iter().all(|name| matches!(*name, "incident_id" | "key_id"));
        (is_address && known && !names.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Returns the address for an incident. Bytes that an address can't have are percent-encoded, so that no name of
    /// a key changes where the link leads.
    #[must_use]
    pub fn fill(&self, incident_id: &str, key_id: &str) -> String {
        fill_in(&self.0, |name| encode(if name == "key_id" { key_id } else { incident_id }))
    }

    /// Returns the scheme and the host, such as `https://soc.example.com`.
    #[must_use]
    pub fn origin(&self) -> &str {
        let start = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0[start..].find(['/', '?', '#']).map_or(self.0.len(), |at| start + at);
        &self.0[..end]
    }
}

/// The address at which people reach a job's HTTP interface, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Returns the address of a text; `None` if it is no http or https address, or has a query, a fragment or a user.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('/');
        let template = format!("{text}/{{incident_id}}");
        let is_plain = !text.contains(['{', '}', '?', '#']) && LinkTemplate::new(&template).is_some();
        is_plain.then(|| Self(text.to_owned()))
    }

    /// Returns the address without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address of the page of an incident. What is behind `#` never reaches a server or a log.
    #[must_use]
    pub fn incident(&self) -> LinkTemplate {
        LinkTemplate(format!("{}/incident#{{incident_id}}", self.0))
    }
}

/// Bytes of an encoded text, at most.
const MAX_ENCODED_BYTES: usize = 300;

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes().take(MAX_ENCODED_BYTES) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Replaces the names in braces of a link or a step by their values. It does so in one pass, so that no value can bring
/// a name in braces.
#[must_use]
pub fn fill_in(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&value(name));
        rest = after;
    }
    out + rest
}

parsed! {
    LinkTemplate: LinkTemplate::new, "an http or https address with {incident_id} or {key_id} behind its host, such as \
        \"https://soc.example.com/incidents/{incident_id}\"";
    PublicUrl: PublicUrl::new, "an http or https address without a query, such as \"http://keytide.example.com:9464\"";
}

/// Returns the names in braces; `None` if a brace has no partner.
fn placeholders(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (name, after) = rest[at..].strip_prefix('{')?.split_once('}')?;
        names.push(name);
        rest = after;
    }
    Some(names)
}

texts! {
    /// A step, which may hold a command.
    StepText if is_step, format!("1 to {MAX_STEP_BYTES} bytes of text, in braces only {{key_id}}, {{incident_id}}, \
        {{subscription}} or {{customer}}");
}

fn is_step(text: &str) -> bool {
    (1..=MAX_STEP_BYTES).contains(&text.len())
        && !text.contains(char::is_control)
        && placeholders(text).is_some_and(|names| names.iter().all(|name| IN_STEPS.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_where_the_configuration_says() {
        let filled =
            |template: &str, key: &str| LinkTemplate::new(template).map(|link| link.fill("00ff", key));
        let url = "https://soc.example.com:8443/i/{incident_id}?key={key_id}";
        assert_eq!(filled(url, "3f2a").unwrap(), "https://soc.example.com:8443/i/00ff?key=3f2a");
        assert_eq!(
            filled(url, "a b/../{incident_id}&x=\u{e4}").unwrap(),
            "https://soc.example.com:8443/i/00ff?key=a%20b%2F..%2F%7Bincident_id%7D%26x%3D%C3%A4"
        );
        assert_eq!(LinkTemplate::new(url).unwrap().origin(), "https://soc.example.com:8443");
        assert_eq!(LinkTemplate::new("http://a?k={key_id}").unwrap().origin(), "http://a");
        let url = PublicUrl::new("https://ops.example.com/keytide/").unwrap();
        assert_eq!(url.as_str(), "https://ops.example.com/keytide");
        assert_eq!(url.incident().fill("00ff", "k"), "https://ops.example.com/keytide/incident#00ff");
        for bad in [
            "",
            "ops.example.com",
            "ftp://a",
            "http://",
            "http://u@a",
            "http://a?b",
            "http://a#b",
            "http://a/{key_id}",
        ] {
            assert_eq!(PublicUrl::new(bad), None, "{bad}");
        }
        for bad in [
            "https://soc.example.com/incidents",
            "soc.example.com/{incident_id}",
            "javascript://x/{incident_id}",
            "ftp://soc.example.com/{incident_id}",
            "https://{key_id}/{incident_id}",
            "https://{key_id}.example.com",
            "https://user:pass@soc.example.com/{incident_id}",
            "https:///{incident_id}",
            "https://soc.example.com/{incident}",
            "https://soc.example.com/{incident_id",
            "https://soc.example.com/}{incident_id}",
            "https://soc.example.com/{incident_id}\">",
            "https://soc.example.com/ {incident_id}",
            "https://soc.example.com/ä/{incident_id}",
        ] {
            assert_eq!(LinkTemplate::new(bad), None, "{bad}");
        }
        assert_eq!(LinkTemplate::new(&format!("https://a/{{key_id}}{}", "x".repeat(2_048))), None);
    }

    #[test]
    fn a_step_has_only_names_that_are_known() {
        for good in ["Suspend it: ourctl keys suspend {key_id}", "{customer}{subscription}{incident_id}", "x"]
        {
            assert!(is_step(good), "{good}");
        }
        for bad in ["", "{key}", "{", "}", "a {key_id", "{key_id}}", "{{key_id}}", "a\nb", &"x".repeat(301)] {
            assert!(!is_step(bad), "{bad}");
        }
    }
}
