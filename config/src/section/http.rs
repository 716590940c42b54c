//! The section `[http]` of the server for metrics, health, the busiest keys and people's answers.
//!
//! Limits: 100 people.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::guide::PublicUrl;
use super::prelude::*;

/// The most people who may answer.
const MAX_PEOPLE: usize = 100;
/// The most bytes of a person's name.
const MAX_NAME_BYTES: usize = 64;

section! {
    /// The section `[http]`, which serves metrics, health and the busiest keys.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Http, RawHttp then reach {
        /// The address at which the job listens.
        other listen: SocketAddr = listen(SocketAddr) or SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
        /// The token of the header `Authorization: Bearer`. It is required unless `listen` is loopback.
        other token: Option<Secret> = token(SecretRef) or None;
        /// The address at which people reach the job, for links and commands in mails.
        other public_url: Option<PublicUrl> = public_url(PublicUrl) or None;
        /// The people who may answer, by name, each with a token of their own.
        other people: BTreeMap<String, Secret> = people(PeopleTokens) or BTreeMap::new();
        /// The gateways that may report outcomes, by name, each with a token of its own.
        other gateways: BTreeMap<String, Secret> = _ or BTreeMap::new();
    }
}

impl RawHttp {
    fn reach(spot: &Spot<Self>, http: &mut Http, check: &mut Check<'_>) {
        let Self { listen, token, public_url: _, people } = &spot.value;
        if !http.listen.ip().is_loopback() && token.is_absent() {
            let location = listen.given().map_or(&spot.location, |listen| &listen.location);
            let message = format!(
                "found {}, which others can reach, without a `token`, allowed: a loopback address, or token = {}",
                http.listen,
                SecretRef::allowed()
            );
            check.refuse(location, message);
        }
        if let Some((spot, secret)) = token.given().zip(http.token.as_ref()) {
            refuse_no_token(spot, secret, check);
        }
        // Whose token it is says who answered, so no two are the same.
        let mut known: Vec<&Secret> = http.token.iter().collect();
        let spots = people.value().into_iter().flat_map(|people| &people.0);
        for (name, spot) in spots {
            let Some(secret) = http.people.get(name) else { continue };
            refuse_no_token(spot, secret, check);
            if known.contains(&secret) {
                check.refuse(spot, "is the token of somebody else, too, allowed: a token of their own");
            }
            known.push(secret);
        }
    }
}

impl Http {
    /// Adds the token of a gateway, which nobody else may have.
    pub(super) fn add_gateway(
        &mut self,
        name: &str,
        token: Secret,
        spot: &Spot<SecretRef>,
        check: &mut Check<'_>,
    ) {
        refuse_no_token(spot, &token, check);
        let mut known = self.token.iter().chain(self.people.values()).chain(self.gateways.values());
        if known.any(|other| *other == token) {
            check.refuse(spot, "is the token of somebody else, too, allowed: a token of its own");
        }
        self.gateways.insert(name.to_owned(), token);
    }
}

/// Refuses a token that a client can't show, since a header can't hold it.
pub(super) fn refuse_no_token(spot: &Spot<SecretRef>, secret: &Secret, check: &mut Check<'_>) {
    if !secret.reveal().bytes().all(|b| b.is_ascii_graphic()) {
        let message = "what it refers to is no token, allowed: visible ASCII characters without blanks";
        check.refuse(spot, message);
    }
}

/// The section `[http.people]` with any names.
pub(crate) struct PeopleTokens(Vec<(String, Spot<SecretRef>)>);

impl FromToml for PeopleTokens {
    const SECTION: bool = true;

    fn expected() -> String {
        "a section".to_owned()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        let mut people = Vec::new();
        for (name, location, node) in Section::open_hidden(node, location, problems)?.into_named() {
            if let Entry::Given(spot) = Entry::read(node, location.path, problems) {
                people.push((name, spot));
            }
        }
        Some(Self(people))
    }
}

impl Validate<BTreeMap<String, Secret>> for PeopleTokens {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<BTreeMap<String, Secret>> {
        let people = &spot.value.0;
        if people.len() > MAX_PEOPLE {
            check.refuse(spot, format!("found {} people, allowed: at most {MAX_PEOPLE}", people.len()));
        }
        let mut tokens = BTreeMap::new();
        for (name, token) in people {
            // The audit has these names for what nobody decided.
            let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b));
            if !is_name || name.len() > MAX_NAME_BYTES || ["policy", "tables"].contains(&name.as_str()) {
                let message = format!(
                    "isn't the name of a person, allowed: up to {MAX_NAME_BYTES} of a to z, A to Z, 0 to 9, . _ - @, and \
                     neither policy nor tables"
                );
                check.refuse(token, message);
            }
            tokens.extend(check.secret(token).map(|secret| (name.clone(), secret)));
        }
        Some(tokens)
    }
}

parsed! {
    SocketAddr: |text| text.parse().ok(), "an address with a port, such as \"127.0.0.1:9464\"";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn values_beyond_their_range_are_reported() {
        for (lines, expected) in [
            (
                "[http]\nlisten = \"localhost:9464\"".to_owned(),
                "line 7: http.listen: found \"localhost:9464\", allowed: an address with a port, such as \"127.0.0.1:9464\"",
            ),
            (
                "[http]\nlisten = \"0.0.0.0:9464\"".to_owned(),
                "line 7: http.listen: found 0.0.0.0:9464, which others can reach, without a `token`, allowed: a loopback address, or token = \"env:NAME\" or \"file:PATH\", never the secret itself",
            ),
        ] {
            assert_eq!(problems(&format!("{SMALL}{lines}")), expected, "{lines}");
        }
    }

    #[test]
    fn a_token_is_a_secret_that_a_header_can_hold() {
        let text = format!("{SMALL}[http]\nlisten = \"0.0.0.0:9464\"\ntoken = \"env:TOKEN\"");
        let token = "a-long-and-random-token";
        let http = parse_with(&text, &[("TOKEN", token)]).unwrap().job.http.unwrap();
        assert_eq!(http.token.as_ref().map(Secret::reveal), Some(token));
        assert!(!format!("{http:?}").contains(token));
        let people = text.clone() + "\n[http.people]\nalice = \"env:ALICE\"\n\"bob.b@x\" = \"env:BOB\"";
        let tokens = [("TOKEN", token), ("ALICE", "the-token-of-alice-0"), ("BOB", "the-token-of-bob-0123")];
        let http = parse_with(&people, &tokens).unwrap().job.http.unwrap();
        assert_eq!(http.people.keys().collect::<Vec<_>>(), ["alice", "bob.b@x"]);
        assert!(!format!("{http:?}").contains("the-token-of"));
        for (name, tokens, expected) in [
            (
                "bob",
                [("TOKEN", token), ("ALICE", "a-token-of-both-0123"), ("BOB", "a-token-of-both-0123")],
                "is the token of somebody else, too, allowed: a token of their own",
            ),
            (
                "bob",
                [("TOKEN", token), ("ALICE", "the-token-of-alice-0"), ("BOB", token)],
                "is the token of somebody else, too, allowed: a token of their own",
            ),
            (
                "tables",
                tokens,
                "isn't the name of a person, allowed: up to 64 of a to z, A to Z, 0 to 9, . _ - @, and neither policy nor tables",
            ),
        ] {
            let text = people.replace("bob.b@x", name);
            let error = parse_with(&text, &tokens).unwrap_err().to_string();
            assert_eq!(error, format!("line 11: http.people.\"{name}\": {expected}"));
        }
        assert_eq!(
            parse_with(&text, &[("TOKEN", "no token of sixteen bytes")]).unwrap_err().to_string(),
            "line 8: http.token: what it refers to is no token, allowed: visible ASCII characters without blanks"
        );
    }
}
