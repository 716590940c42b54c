//! The section `[api]` of the server that answers gateways and customers at request time.
//!
//! Limits: 100 tokens, 64 threads. `[tables.tokens]` has more tokens.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use super::fields::Pointer;
use super::format::Format;
use super::http::refuse_no_token;
use super::keys::{KeyFrom, KeyHash};
use super::prelude::*;
use super::source::{RawSource, Source, SourceKind};

const MAX_TOKENS: usize = 100;
/// The most bytes of a customer's id.
const MAX_CUSTOMER_BYTES: usize = 256;

section! {
    /// The section `[api]`, which answers if a key may call now, and how subscriptions stand.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Api, RawApi {
        /// The address at which the job listens.
        other listen: SocketAddr = listen(SocketAddr) or SocketAddr::from((Ipv4Addr::LOCALHOST, 9466));
        /// The answer to checks of hard quotas while no tick comes.
        other on_stale: OnStale = on_stale(OnStale) or OnStale::Allow;
        /// Threads that answer, beside those of the job.
        other threads: u64 = threads(Count, 1..=64) or 2;
        /// Bytes of the newest rows, from which the API answers about keys and subscriptions.
        other memory: usize = memory(Size, 1 << 20..=64 << 30) or 256 << 20;
        /// The source whose rules find the key of a gateway's request; `None` is the first one.
        other source: Option<String> = source(Name) or None;
        /// Where settlements are recorded; `None` if they only end reservations.
        other settlements: Option<Settlements> = settlements(RawSettlements) or None;
        /// Those who may ask, by tokens. Without any, and without a table of tokens, everything is open, which only
        /// loopback allows.
        other tokens: Vec<ApiToken> = token(Sections<RawApiToken>) or Vec::new();
    }
}

section! {
    /// The section `[api.settlements]`: settlements become records of a source of the job.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Settlements, RawSettlements, by hand {
        /// The name of the source, whose fields say how a record is written.
        other source: String = source(Name);
    }
}

section! {
    /// A token, and what it opens.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ApiToken, RawApiToken, pub(crate) new(name: String, token: Secret, role: ApiRole) {
        /// The name of its holder, which is unique.
        other name: String = name(Name);
        other token: Secret = token(SecretRef);
        other role: ApiRole = role(ApiRole);
        /// The customer whose data a consumer sees.
        other customer: Option<String> = customer(CustomerText) or None;
    }
}

choice! {
    /// The answer to checks of hard quotas while no tick comes.
    #[derive(Default)]
    pub enum OnStale {
        /// Checks are decided by what is known.
        #[default]
        Allow = "allow",
        /// Checks of hard quotas are denied.
        Deny = "deny",
    }
}

choice! {
    /// The requests that a token opens.
    pub enum ApiRole {
        /// Opens every request, of all customers.
        Admin = "admin",
        /// Opens all requests that only read.
        Ops = "ops",
        /// Opens checks, settlements and rollbacks.
        Check = "check",
        /// Opens requests that only read, about one customer.
        Consumer = "consumer",
    }
}

texts! {
    /// A customer's id as the table of subscriptions has it.
    CustomerText if |text| (1..=MAX_CUSTOMER_BYTES).contains(&text.len()) && !text.contains(char::is_control),
        format!("the customer's id in tables.subscriptions, of at most {MAX_CUSTOMER_BYTES} bytes");
}

impl Validate<Settlements> for RawSettlements {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Settlements> {
        let source = check.required(&spot.value.source, spot, "source")?;
        Some(Settlements { source: source.0.clone() })
    }
}

impl RawApi {
    /// Refuses an API that anybody can reach and ask, and the name of a source that the file doesn't have.
    pub(super) fn with_others(
        spot: &Spot<Self>,
        api: &Api,
        (sources, has_table): (&[Spot<RawSource>], bool),
        check: &mut Check<'_>,
    ) {
        let Self { listen, token, source, settlements, .. } = &spot.value;
        if !api.listen.ip().is_loopback() && token.is_absent() && !has_table {
            let location = listen.given().map_or(&spot.location, |listen| &listen.location);
            let message = format!(
                "found {}, which others can reach, without a token, allowed: a loopback address, one or more \
                 [[api.token]], or [tables.tokens]",
                api.listen
            );
            check.refuse(location, message);
        }
        let settlements = settlements.given().and_then(|section| section.value.source.given());
        for source in source.given().into_iter().chain(settlements) {
            let mut names = sources.iter().filter_map(|source| source.value.name.value());
            if !names.any(|name| *name == source.value) {
                check.refuse(source, format!("found {}, allowed: the name of a [[source]]", source.shown));
            }
        }
    }
}

impl RawApi {
    /// Refuses a source whose records can't be settlements. One that isn't valid itself isn't among `sources`.
    pub(super) fn with_settlements(spot: &Spot<Self>, sources: &[Source], check: &mut Check<'_>) {
        let settlements = spot.value.settlements.given().and_then(|section| section.value.source.given());
        let Some(named) = settlements else { return };
        let Some(source) = sources.iter().find(|source| source.name == named.value.0) else { return };
        if let Some(needed) = Settlements::needed_of(source) {
            check.refuse(
                named,
                format!(
                    "found {}, whose records can't be settlements, allowed: a source with {needed}",
                    named.shown
                ),
            );
        }
    }
}

impl Settlements {
    /// The fields of a source that a settlement has.
    pub const FIELDS: [&'static str; 7] =
        ["request_id", "time", "key", "count", "units", "bytes_in", "bytes_out"];

    /// Returns what a source lacks to take settlements.
    fn needed_of(source: &Source) -> Option<&'static str> {
        let fields = source.fields.named();
        let field =
            |name: &str| fields.iter().find(|(other, _)| *other == name).and_then(|(_, field)| *field);
        let members = Self::FIELDS.map(|name| field(name).and_then(|field| field.at.first()));
        let is_member = |pointer: &Option<&Pointer>| pointer.is_some_and(|pointer| pointer.0.len() == 1);
        let distinct: HashSet<_> = members.iter().collect();
        let conditions = [
            (matches!(source.kind, SourceKind::Kafka(_)), "kind = \"kafka\""),
            (source.format == Format::Json, "format = \"json\""),
            (
                members.iter().all(is_member) && distinct.len() == members.len(),
                "[source.fields] that names a member of its own, such as \"/units\", for each of request_id, time, key, count, \
                 units, bytes_in and bytes_out",
            ),
            (
                source.fields.time.as_ref().is_some_and(|time| time.format.is_none()),
                "a time without a format of its own",
            ),
            (source.keys.from.first() == Some(&KeyFrom::Key), "[source.keys].from = [\"key\"]"),
            (
                matches!(source.keys.hash, KeyHash::Prehashed | KeyHash::None),
                "[source.keys].hash = \"prehashed\", or \"none\" if keys are no secrets",
            ),
            (source.only.is_empty(), "no [source.only]"),
        ];
        conditions.into_iter().find(|(is_met, _)| !is_met).map(|(_, needed)| needed)
    }
}

impl Validate<Vec<ApiToken>> for Sections<RawApiToken> {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Vec<ApiToken>> {
        let items = &spot.value.0.items;
        if items.len() > MAX_TOKENS {
            check.refuse(spot, format!("found {} tokens, allowed: at most {MAX_TOKENS}", items.len()));
        }
        let mut names = HashSet::new();
        let mut tokens: Vec<ApiToken> = Vec::new();
        for item in items {
            let raw = &item.value;
            if let Some(name) = raw.name.given().filter(|name| !names.insert(name.value.0.as_str())) {
                let message = format!("{} names another token too, allowed: names that differ", name.shown);
                check.refuse(name, message);
            }
            let Some(token) = token(item, check) else { continue };
            if let Some(given) = raw.token.given()
                && tokens.iter().any(|other| other.token == token.token)
            {
                check
                    .refuse(given, "is the token of another [[api.token]], too, allowed: a token of its own");
            }
            tokens.push(token);
        }
        Some(tokens)
    }
}

fn token(spot: &Spot<RawApiToken>, check: &mut Check<'_>) -> Option<ApiToken> {
    let raw = &spot.value;
    let name = check.required(&raw.name, spot, "name").map(|name| name.0.clone());
    let role = check.required(&raw.role, spot, "role").copied();
    check.required(&raw.token, spot, "token");
    let secret = raw.token.given().and_then(|given| {
        let secret = check.secret(given)?;
        refuse_no_token(given, &secret, check);
        Some(secret)
    });
    match role {
        Some(ApiRole::Consumer) => {
            check.required(&raw.customer, spot, "customer");
        }
        Some(ApiRole::Admin | ApiRole::Ops | ApiRole::Check) => {
            if let Some(customer) = raw.customer.given() {
                let message = "has no meaning here, allowed: only beside role = \"consumer\"";
                check.refuse(customer, message);
            }
        }
        None => {}
    }
    let mut token = ApiToken::new(name?, secret?, role?);
    raw.fill(&mut token, check);
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    const EDGE: &str = "[[api.token]]\nname = \"edge\"\ntoken = \"env:EDGE\"\nrole = \"check\"\n[[api.token]]\nname = \"acme\"\ntoken = \"env:ACME\"\nrole = \"consumer\"\ncustomer = \"cus_1\"\n";
    const TOKENS: [(&str, &str); 2] = [("EDGE", "the-token-of-edge-01"), ("ACME", "the-token-of-acme-01")];

    #[test]
    fn an_api_is_open_on_loopback_and_has_its_defaults() {
        assert_eq!(job(SMALL).api, None);
        let api = job(&format!("{SMALL}[api]\n")).api.unwrap();
        assert_eq!(api, Api::default());
        assert_eq!(api.listen.to_string(), "127.0.0.1:9466");
        assert_eq!((api.threads, api.on_stale), (2, OnStale::Allow));
    }

    #[test]
    fn tokens_have_roles_and_are_never_printed() {
        let text = format!(
            "{SMALL}[api]\nlisten = \"0.0.0.0:9466\"\non_stale = \"deny\"\nsource = \"gateway\"\nthreads = 8\n{EDGE}"
        );
        let api = parse_with(&text, &TOKENS).unwrap().job.api.unwrap();
        let [edge, acme] = api.tokens.as_slice() else { panic!("two tokens") };
        assert_eq!((edge.name.as_str(), edge.role, &edge.customer), ("edge", ApiRole::Check, &None));
        assert_eq!((acme.role, acme.customer.as_deref()), (ApiRole::Consumer, Some("cus_1")));
        assert_eq!((api.threads, api.on_stale), (8, OnStale::Deny));
        assert_eq!(api.source.as_deref(), Some("gateway"));
        assert!(!format!("{api:?}").contains("the-token-of"));
    }

    const SETTLED: &str = r#"[api.settlements]
source = "settled"
[[source]]
name = "settled"
kind = "kafka"
brokers = "localhost:9092"
topic = "settled"
format = "json"
[source.fields]
request_id = "/id"
time = { at = "/time", unit = "rfc3339" }
key = "/key"
count = "/calls"
units = { at = "/cost", scale = 6 }
bytes_in = "/in"
bytes_out = "/out"
[source.keys]
from = ["key"]
hash = "prehashed"
"#;

    #[test]
    fn settlements_are_records_of_a_source_that_can_read_them() {
        let settled = |text: &str| parse_with(&format!("{SMALL}{text}"), &[]).map(|config| config.job);
        let job = settled(SETTLED).unwrap();
        assert_eq!(job.api.unwrap().settlements, Some(Settlements { source: "settled".to_owned() }));
        assert!(settled(&SETTLED.replace("prehashed", "none")).is_ok());
        for (from, to, needed) in [
            (
                "kind = \"kafka\"\nbrokers = \"localhost:9092\"\ntopic = \"settled\"",
                "kind = \"file\"\npath = \"x\"",
                "kind = \"kafka\"",
            ),
            ("\"json\"", "\"otel\"", "format = \"json\""),
            ("bytes_out = \"/out\"\n", "", "[source.fields] that names a member of its own"),
            ("\"/out\"", "\"/in\"", "[source.fields] that names a member of its own"),
            ("\"/out\"", "\"/size/out\"", "[source.fields] that names a member of its own"),
            ("unit = \"rfc3339\"", "format = \"%d.%m.%Y %H:%M:%S\"", "a time without a format of its own"),
            ("[\"key\"]", "[\"consumer\", \"key\"]", "[source.keys].from"),
            ("\"prehashed\"", "\"sha256\"", "[source.keys].hash"),
            ("[source.keys]", "[source.only]\n\"/kind\" = \"x\"\n[source.keys]", "no [source.only]"),
        ] {
            assert!(SETTLED.contains(from), "{from}");
            let error = settled(&SETTLED.replacen(from, to, 1)).map(|_| ()).unwrap_err().to_string();
            let expected = format!(
                "api.settlements.source: found \"settled\", whose records can't be settlements, allowed: a source with {needed}"
            );
            assert!(error.contains(&expected), "{error}");
        }
        let error = settled("[api.settlements]\nsource = \"other\"").map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("api.settlements.source: found \"other\", allowed: the name of a [[source]]"),
            "{error}"
        );
        let error = settled("[api.settlements]\n").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("source: missing"), "{error}");
    }

    #[test]
    fn a_table_of_tokens_is_enough_for_an_api_that_others_can_reach() {
        let table = "[tables.tokens]\nkind = \"file\"\npath = \"tokens.csv\"\nformat = \"csv\"\n";
        let text = format!("{SMALL}{table}[api]\nlisten = \"0.0.0.0:9466\"\n");
        assert!(job(&text).tables.tokens.is_some());
        assert_eq!(warnings(&text), "");
        // No result depends on it.
        assert_eq!(job(&text).fingerprint(), job(SMALL).fingerprint());
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let with = |lines: &str| {
            let error = parse_with(&format!("{SMALL}{lines}"), &TOKENS).map(|_| ()).unwrap_err();
            error.to_string()
        };
        for (lines, expected) in [
            (
                "[api]\nlisten = \"0.0.0.0:1\"".to_owned(),
                "line 7: api.listen: found 0.0.0.0:1, which others can reach, without a token, allowed: a loopback address, one or more [[api.token]], or [tables.tokens]",
            ),
            ("[api]\nthreads = 0".to_owned(), "line 7: api.threads: found 0, allowed: 1 to 64"),
            (
                "[api]\non_stale = \"open\"".to_owned(),
                "line 7: api.on_stale: found \"open\", allowed: allow, deny",
            ),
            (
                "[api]\nsource = \"other\"".to_owned(),
                "line 7: api.source: found \"other\", allowed: the name of a [[source]]",
            ),
            (
                EDGE.replace("acme\"", "edge\""),
                "line 11: api.token.\"edge\".name: \"edge\" names another token too, allowed: names that differ",
            ),
            (
                EDGE.replace("env:ACME", "env:EDGE"),
                "line 12: api.token.\"acme\".token: is the token of another [[api.token]], too, allowed: a token of its own",
            ),
            (
                EDGE.replace("customer = \"cus_1\"\n", ""),
                "line 10: api.token.\"acme\".customer: missing, allowed: the customer's id in tables.subscriptions, of at most 256 bytes",
            ),
            (
                EDGE.replace("consumer", "ops"),
                "line 14: api.token.\"acme\".customer: has no meaning here, allowed: only beside role = \"consumer\"",
            ),
            (
                EDGE.replace("\"check\"", "\"root\""),
                "line 9: api.token.\"edge\".role: found \"root\", allowed: admin, ops, check, consumer",
            ),
        ] {
            assert_eq!(with(&lines), expected, "{lines}");
        }
        let none = with("[[api.token]]\nrole = \"admin\"");
        assert!(none.contains("name: missing") && none.contains("token: missing"), "{none}");
        let many: String = (0..101)
            .map(|n| format!("[[api.token]]\nname = \"t{n}\"\ntoken = \"env:EDGE\"\nrole = \"check\"\n"))
            .collect();
        assert!(with(&many).contains("found 101 tokens, allowed: at most 100"));
    }
}
