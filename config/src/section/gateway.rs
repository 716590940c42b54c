//! The sections `[[gateway]]` of the gateways that refuse keys.
//!
//! Limits: 16 gateways, each with the limits of a webhook.

use std::collections::{BTreeSet, HashSet};

use super::detection::Detection;
use super::fields::FieldMap;
use super::http::{Http, refuse_no_token};
use super::keys::KeyRules;
use super::policy::PolicyMode;
use super::prelude::*;
use super::source::Source;
use super::webhook::{URL, UrlText, WebhookUrl, allowed_url};
use crate::fingerprint::fingerprint;

/// The most gateways of a job.
const MAX_GATEWAYS: usize = 16;
/// Bytes of the name of a region, at most.
const MAX_REGION_BYTES: usize = 32;
/// The name of a gateway that has none.
const GATEWAY: &str = "gateway";

keys! {
    /// The keys of a `[[gateway]]`.
    RawGateway {
        name: Name,
        kind: GatewayKindName,
        path: PathText,
        url: UrlText,
        secret: SecretRef,
        token: SecretRef,
        admin_token: SecretRef,
        region: Region,
        access_key_id: SecretRef,
        secret_access_key: SecretRef,
        credentials_file: PathText,
        unproven: Flag,
        allow_private: List<HostName>,
        timeout: Millis,
        mode: PolicyMode,
        probation: Flag,
        keys_per_hour: Count,
        percent_per_hour: Count,
        confirm_after: Millis,
    }
}

/// A gateway, which refuses the keys that are suspended or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The name, which is unique in the job and which the views `audit` and `revocations` show.
    pub name: String,
    pub kind: GatewayKind,
    pub mode: PolicyMode,
    pub caps: GatewayCaps,
    /// How long after an action was done its key may still be let in, in milliseconds.
    pub confirm_after_ms: u64,
    /// The fingerprint of the settings that a person has to see at work before the policy acts by itself. It covers no
    /// secret. `None` if the policy acts from the first action on.
    pub probation: Option<String>,
}

/// The most keys of one gateway that the policy may act on within an hour, beside those of the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayCaps {
    /// Their number; `None` for that of the job alone.
    pub keys_per_hour: Option<u32>,
    /// The same in percent of all keys of the job that are in use, and one key at least.
    pub percent_per_hour: Option<u32>,
}

/// How a gateway learns which keys it must refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayKind {
    /// A file with a line for each key.
    File { path: PathBuf },
    /// The topic `denied` of the Kafka sink.
    Topic,
    /// A request about each action.
    Webhook {
        endpoint: Endpoint,
        /// The secret that signs requests.
        secret: Secret,
    },
    /// The Admin API of Kong.
    Kong(AdminApi),
    /// The Admin API of APISIX.
    Apisix(AdminApi),
    /// The API of Amazon API Gateway.
    Aws(AwsApi),
}

/// A server that is called about actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub url: WebhookUrl,
    /// Hosts in lower case that may have private addresses, and may be reached without TLS.
    pub allow_private: Vec<String>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
}

/// The interface by which a gateway's credentials are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminApi {
    pub endpoint: Endpoint,
    /// The token that opens it.
    pub token: Option<Secret>,
    /// True if a credential may be changed without proof that it holds the incident's key, where no proof is possible.
    pub unproven: bool,
}

/// The interface by which the API keys of Amazon API Gateway are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsApi {
    pub endpoint: Endpoint,
    /// The region, such as `eu-central-1`.
    pub region: String,
    pub credentials: AwsCredentials,
    /// True if an API key may be changed without proof that it is the incident's, where no proof is possible.
    pub unproven: bool,
}

/// Where the access key is that signs requests to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsCredentials {
    /// In the settings of these names, each `env:NAME` or `file:PATH`.
    Keys { access_key_id: Secret, secret_access_key: Secret },
    /// In the section `[default]` of this file, which is read anew for each request.
    File(PathBuf),
}

/// The name of a region of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region(String);

impl Scalar for Region {
    fn allowed() -> String {
        format!(
            "the name of a region such as \"eu-central-1\", of a-z, 0-9 and -, at most {MAX_REGION_BYTES} bytes"
        )
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let text = text(value)?;
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name = (1..=MAX_REGION_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
        // It is the end of a host's label.
        refuse((is_name && !text.ends_with('-')).then(|| Self(text.to_owned())))
    }
}

choice! {
    /// The values of `kind` in a `[[gateway]]`.
    pub(crate) enum GatewayKindName {
        File = "file",
        Topic = "topic",
        Webhook = "webhook",
        Kong = "kong",
        Apisix = "apisix",
        Aws = "aws-apigateway",
    }
}

impl Fingerprint for Gateway {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { name, kind, mode, caps, confirm_after_ms, probation } = self;
        encoder.add(name);
        // Where a gateway is reached changes no row but by its probation.
        let kind = match kind {
            GatewayKind::File { .. } => GatewayKindName::File,
            GatewayKind::Topic => GatewayKindName::Topic,
            GatewayKind::Webhook { .. } => GatewayKindName::Webhook,
            GatewayKind::Kong(_) => GatewayKindName::Kong,
            GatewayKind::Apisix(_) => GatewayKindName::Apisix,
            GatewayKind::Aws(_) => GatewayKindName::Aws,
        };
        encoder.text(kind.name());
        encoder.add(mode);
        let GatewayCaps { keys_per_hour, percent_per_hour } = caps;
        encoder.add(keys_per_hour);
        encoder.add(percent_per_hour);
        encoder.add(confirm_after_ms);
        encoder.add(probation);
    }
}

/// The settings after a change of which a gateway is on probation again.
struct TriedSettings<'a> {
    gateway: &'a Gateway,
    detection: &'a Detection,
    sources: &'a [Source],
}

impl Fingerprint for TriedSettings<'_> {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { gateway, detection, sources } = self;
        encoder.add(*detection);
        // Each way to a key once: one more source that has a known way changes nothing.
        let ways: BTreeSet<String> = sources.iter().map(|source| fingerprint(&WayToKeys(source))).collect();
        encoder.add(&ways.into_iter().collect::<Vec<_>>());
        encoder.add(*gateway);
        match &gateway.kind {
            GatewayKind::File { path } => encoder.add(path),
            GatewayKind::Topic => {}
            // The path of a receiver's URL may be a secret.
            GatewayKind::Webhook { endpoint, secret: _ } => encoder.add(endpoint),
            GatewayKind::Kong(api) | GatewayKind::Apisix(api) => {
                let AdminApi { endpoint, token: _, unproven } = api;
                encoder.add(endpoint);
                encoder.text(endpoint.url.target.reveal());
                encoder.add(unproven);
            }
            GatewayKind::Aws(AwsApi { endpoint, region, credentials: _, unproven }) => {
                encoder.add(endpoint);
                encoder.text(endpoint.url.target.reveal());
                encoder.text(region);
                encoder.add(unproven);
            }
        }
    }
}

/// How the key of a source's call is found, but for secrets.
struct WayToKeys<'a>(&'a Source);

impl Fingerprint for WayToKeys<'_> {
    fn add_to(&self, encoder: &mut Encoder) {
        let KeyRules { from, hash, missing } = &self.0.keys;
        encoder.add(from);
        encoder.text(hash.name());
        encoder.add(missing);
        let Source { format, inner, pattern, .. } = self.0;
        encoder.add(format);
        encoder.add(inner);
        encoder.add(pattern);
        let FieldMap {
            key, consumer, credential, user, client_ip, forwarded_for, path, query, request, ..
        } = &self.0.fields;
        [key, consumer, credential, user, client_ip, forwarded_for, path, query, request]
            .into_iter()
            .for_each(|field| encoder.add(field));
    }
}

impl Fingerprint for Endpoint {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { url, allow_private, timeout_ms } = self;
        let WebhookUrl { tls, host, port, target: _ } = url;
        encoder.add(tls);
        encoder.add(host);
        encoder.number((*port).into());
        encoder.add(allow_private);
        encoder.add(timeout_ms);
    }
}

/// What gateways need of other sections.
pub(crate) struct Needed<'a> {
    /// The mode of a gateway that has none.
    pub(crate) mode: PolicyMode,
    pub(crate) has_state: bool,
    pub(crate) has_topics: bool,
    /// True if a source hashes raw keys, so that a raw key proves whose it is.
    pub(crate) has_proof: bool,
    pub(crate) detection: &'a Detection,
    pub(crate) sources: &'a [Source],
    /// The section `[http]`, which gets the tokens for outcomes.
    pub(crate) http: Option<&'a mut Http>,
}

/// Validates the gateways one by one, and their names.
pub(crate) fn gateways(
    entry: &Entry<Sections<RawGateway>>,
    mut needed: Needed<'_>,
    check: &mut Check<'_>,
) -> Vec<Gateway> {
    let Some(spot) = entry.given() else { return Vec::new() };
    let items = &spot.value.0.items;
    if items.len() > MAX_GATEWAYS {
        check.refuse(spot, format!("found {} gateways, allowed: at most {MAX_GATEWAYS}", items.len()));
    }
    let mut names = HashSet::new();
    let mut gateways = Vec::new();
    for item in items {
        let name = item.value.name.value().map_or(GATEWAY, |name| name.0.as_str());
        let location = item.value.name.given().map_or(&item.location, |name| &name.location);
        let is_given = !matches!(item.value.name, Entry::Refused);
        if is_given && !names.insert(name) {
            let message = format!("{} names another gateway too, allowed: names that differ", quoted(name));
            check.refuse(location, message);
        }
        // The audit has these names for what others did.
        let is_person = needed.http.as_ref().is_some_and(|http| http.people.contains_key(name));
        if is_person || ["policy", "tables"].contains(&name) {
            let message = format!(
                "{} can't name a gateway, allowed: neither policy, nor tables, nor a name of [http.people]",
                quoted(name)
            );
            check.refuse(location, message);
        }
        gateways.extend(one(item, name, &mut needed, check));
    }
    gateways
}

fn one(
    spot: &Spot<RawGateway>,
    name: &str,
    needed: &mut Needed<'_>,
    check: &mut Check<'_>,
) -> Option<Gateway> {
    let raw = &spot.value;
    let given = raw.mode.given();
    let mode = given.map_or(needed.mode, |mode| mode.value);
    if mode == PolicyMode::Live && !needed.has_state {
        let message = "acts on keys, which needs [state]: a job that forgets which keys are suspended can't let them in again";
        match given {
            Some(given) => check.refuse(given, message),
            None => check.refuse(spot, message),
        }
    }
    let kind = *check.required(&raw.kind, spot, "kind")?;
    raw.refuse_foreign(kind, check);
    let kind = match kind {
        GatewayKindName::File => {
            let path = check.required(&raw.path, spot, "path")?;
            GatewayKind::File { path: check.base.join(&path.0) }
        }
        GatewayKindName::Topic => {
            if !needed.has_topics {
                check.refuse(spot, "needs [sink.kafka], whose topic `denied` it follows");
            }
            GatewayKind::Topic
        }
        GatewayKindName::Webhook => {
            let endpoint = endpoint(spot, check);
            check.required(&raw.secret, spot, "secret");
            let secret = raw.secret.given().and_then(|secret| check.secret(secret));
            token_for_outcomes(raw, name, needed, check);
            GatewayKind::Webhook { endpoint: endpoint?, secret: secret? }
        }
        GatewayKindName::Kong => GatewayKind::Kong(admin_api(spot, needed, check)?),
        GatewayKindName::Apisix => {
            check.required(&raw.admin_token, spot, "admin_token");
            GatewayKind::Apisix(admin_api(spot, needed, check)?)
        }
        GatewayKindName::Aws => GatewayKind::Aws(aws_api(spot, needed, check)?),
    };
    let (mut caps, mut confirm_after_ms) = (GatewayCaps::default(), MINUTE_MS);
    check.fill(&mut caps.keys_per_hour, &raw.keys_per_hour, 0..=1_000_000);
    check.fill(&mut caps.percent_per_hour, &raw.percent_per_hour, 0..=100);
    check.fill(&mut confirm_after_ms, &raw.confirm_after, 1_000..=HOUR_MS);
    let mut gateway = Gateway { name: name.to_owned(), kind, mode, caps, confirm_after_ms, probation: None };
    if raw.probation.value().is_none_or(|flag| flag.0) {
        let Needed { detection, sources, .. } = *needed;
        gateway.probation = Some(fingerprint(&TriedSettings { gateway: &gateway, detection, sources }));
    }
    Some(gateway)
}

impl RawGateway {
    /// Refuses the keys that belong to other kinds.
    fn refuse_foreign(&self, kind: GatewayKindName, check: &mut Check<'_>) {
        use GatewayKindName::{Apisix, Aws, File, Kong, Topic, Webhook};
        let Self {
            name: _,
            kind: _,
            path,
            url,
            secret,
            token,
            admin_token,
            region,
            access_key_id,
            secret_access_key,
            credentials_file,
            unproven,
            allow_private,
            timeout,
            mode: _,
            probation: _,
            keys_per_hour: _,
            percent_per_hour: _,
            confirm_after: _,
        } = self;
        if kind != File {
            check.foreign(path, "file");
        }
        if kind != Webhook {
            check.foreign(secret, "webhook");
            check.foreign(token, "webhook");
        }
        if !matches!(kind, Kong | Apisix) {
            check.foreign(admin_token, "kong\" or \"apisix");
        }
        if kind != Aws {
            let aws = Aws.name();
            check.foreign(region, aws);
            check.foreign(access_key_id, aws);
            check.foreign(secret_access_key, aws);
            check.foreign(credentials_file, aws);
        }
        if !matches!(kind, Kong | Apisix | Aws) {
            check.foreign(unproven, "kong\", \"apisix\" or \"aws-apigateway");
        }
        if matches!(kind, File | Topic) {
            let called = "webhook\", \"kong\", \"apisix\" or \"aws-apigateway";
            check.foreign(url, called);
            check.foreign(allow_private, called);
            check.foreign(timeout, called);
        }
    }
}

/// Hands the token by which a gateway reports outcomes to `[http]`.
fn token_for_outcomes(raw: &RawGateway, name: &str, needed: &mut Needed<'_>, check: &mut Check<'_>) {
    let Some(spot) = raw.token.given() else { return };
    let Some(secret) = check.secret(spot) else { return };
    match &mut needed.http {
        Some(http) => {
            http.add_gateway(name, secret, spot, check);
        }
        None => check.refuse(spot, "needs [http], where the gateway reports outcomes"),
    }
}

/// Reads where a server is and how it is called.
fn endpoint(spot: &Spot<RawGateway>, check: &mut Check<'_>) -> Option<Endpoint> {
    check.required(&spot.value.url, spot, "url");
    endpoint_or(spot, None, check)
}

/// Does the same for a server that is at `usual` if the section doesn't say.
fn endpoint_or(
    spot: &Spot<RawGateway>,
    usual: Option<WebhookUrl>,
    check: &mut Check<'_>,
) -> Option<Endpoint> {
    let RawGateway { url, allow_private, timeout, .. } = &spot.value;
    let url = match url.given() {
        Some(url) => allowed_url(url, allow_private, check),
        None => usual,
    };
    let (mut hosts, mut timeout_ms) = (Vec::new(), 10_000);
    check.fill(&mut hosts, allow_private, AtMost(64, "hosts"));
    check.fill(&mut timeout_ms, timeout, 1_000..=MINUTE_MS);
    Some(Endpoint { url: url?, allow_private: hosts, timeout_ms })
}

fn admin_api(spot: &Spot<RawGateway>, needed: &Needed<'_>, check: &mut Check<'_>) -> Option<AdminApi> {
    let RawGateway { admin_token, .. } = &spot.value;
    let endpoint = endpoint(spot, check);
    refuse_query(spot, endpoint.as_ref(), check);
    let mut token = None;
    check.fill(&mut token, admin_token, ());
    if let Some((spot, token)) = admin_token.given().zip(token.as_ref()) {
        refuse_no_token(spot, token, check);
    }
    let unproven = unproven(spot, needed, check);
    Some(AdminApi { endpoint: endpoint?, token, unproven })
}

fn aws_api(spot: &Spot<RawGateway>, needed: &Needed<'_>, check: &mut Check<'_>) -> Option<AwsApi> {
    let RawGateway { region, access_key_id, secret_access_key, credentials_file, .. } = &spot.value;
    let region = check.required(region, spot, "region").map(|region| region.0.clone());
    let usual = region.as_ref().map(|region| {
        let host = format!("apigateway.{region}.amazonaws.com");
        WebhookUrl { tls: true, host, port: 443, target: Secret::new("/") }
    });
    let endpoint = endpoint_or(spot, usual, check);
    refuse_query(spot, endpoint.as_ref(), check);
    let credentials = match credentials_file.given() {
        Some(file) => {
            for key in [access_key_id, secret_access_key] {
                if let Some(key) = key.given() {
                    check.refuse(key, "stands beside credentials_file, allowed: one of both");
                }
            }
            Some(AwsCredentials::File(check.base.join(&file.value.0)))
        }
        None => {
            check.required(access_key_id, spot, "access_key_id");
            check.required(secret_access_key, spot, "secret_access_key");
            let mut read = |key: &Entry<SecretRef>| {
                let spot = key.given()?;
                let key = Secret::new(check.referred(&spot.value, &spot.location)?);
                refuse_no_token(spot, &key, check);
                Some(key)
            };
            let (id, secret) = (read(access_key_id), read(secret_access_key));
            id.zip(secret).map(|(access_key_id, secret_access_key)| AwsCredentials::Keys {
                access_key_id,
                secret_access_key,
            })
        }
    };
    let unproven = unproven(spot, needed, check);
    Some(AwsApi { endpoint: endpoint?, region: region?, credentials: credentials?, unproven })
}

/// Refuses the query of a URL that is only the start of others.
fn refuse_query(spot: &Spot<RawGateway>, endpoint: Option<&Endpoint>, check: &mut Check<'_>) {
    if let Some((url, endpoint)) = spot.value.url.given().zip(endpoint)
        && endpoint.url.target.reveal().contains('?')
    {
        check.refuse(url, format!("has a query, which an Admin API hasn't, allowed: {URL}, without a query"));
    }
}

/// Returns whether the table of keys is believed, and refuses a section that neither proves nor believes.
fn unproven(spot: &Spot<RawGateway>, needed: &Needed<'_>, check: &mut Check<'_>) -> bool {
    let unproven = spot.value.unproven.value().is_some_and(|flag| flag.0);
    if !unproven && !needed.has_proof {
        let message = "can't prove that a credential holds the key of an incident, as no source has hash = \"sha256\" or \
                       \"hmac-sha256\"; add unproven = true if the table of keys is to be trusted";
        check.refuse(spot, message);
    }
    unproven
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    const STATE: &str = "[state]\nurl = \"file:///var/lib/keytide\"\n";
    const FILE: &str = "[[gateway]]\nkind = \"file\"\npath = \"denied.txt\"\n";

    const WEBHOOK: &str =
        "[[gateway]]\nkind = \"webhook\"\nurl = \"https://hooks.example.com/x\"\nsecret = \"env:SECRET\"\n";
    const KONG: &str =
        "[[gateway]]\nkind = \"kong\"\nurl = \"https://kong.example.com:8444\"\nname = \"kong\"\n";
    const AWS: &str =
        "[[gateway]]\nkind = \"aws-apigateway\"\nregion = \"eu-central-1\"\ncredentials_file = \"aws\"\n";
    const SECRETS: [(&str, &str); 3] =
        [("SECRET", "0123456789abcdef"), ("TOKEN", "a-token-of-a-gateway"), ("ALICE", "a-token-of-alice")];

    fn with_secrets(lines: &str) -> crate::JobConfig {
        parse_with(&format!("{SMALL}{lines}"), &SECRETS).unwrap_or_else(|error| panic!("{error}")).job
    }

    fn of(lines: &str) -> Option<Gateway> {
        let mut gateways = with_secrets(lines).gateways;
        assert!(gateways.len() < 2, "{gateways:?}");
        gateways.pop()
    }

    #[test]
    fn a_gateway_only_shows_what_it_would_do_by_default() {
        assert_eq!(of(""), None);
        let expected = |mode| Gateway {
            name: "gateway".to_owned(),
            kind: GatewayKind::File { path: "/etc/keytide/denied.txt".into() },
            mode,
            caps: GatewayCaps::default(),
            confirm_after_ms: 60_000,
            probation: None,
        };
        let of = |lines: &str| of(&format!("{FILE}probation = false\n{lines}"));
        assert_eq!(of(""), Some(expected(PolicyMode::DryRun)));
        let live = format!("mode = \"live\"\n{STATE}");
        assert_eq!(of(&live), Some(expected(PolicyMode::Live)));
        let of_policy = format!("{STATE}[alerts.policy]\nmode = \"live\"");
        assert_eq!(of(&of_policy), Some(expected(PolicyMode::Live)));
        let own = "mode = \"dry_run\"\n[alerts.policy]\nmode = \"live\"";
        assert_eq!(of(own), Some(expected(PolicyMode::DryRun)));
        let caps = GatewayCaps { keys_per_hour: Some(3), percent_per_hour: Some(0) };
        let capped = Gateway { caps, confirm_after_ms: 5_000, ..expected(PolicyMode::DryRun) };
        let lines = "keys_per_hour = 3\npercent_per_hour = 0\nconfirm_after = \"5s\"";
        assert_eq!(of(lines), Some(capped));
    }

    #[test]
    fn settings_that_decide_which_keys_are_refused_begin_a_probation_anew_and_secrets_do_not() {
        let of = |text: &str, variables: &[(&str, &str)]| {
            let loaded = parse_with(text, variables).unwrap_or_else(|error| panic!("{error}"));
            let gateways = loaded.job.gateways.into_iter().filter(|of| of.name == "tried");
            gateways.map(|of| of.probation.unwrap()).next().unwrap()
        };
        let keys = "[keys]\nfrom = [\"key\"]\nhash = \"hmac-sha256\"\nsecret = \"env:ALICE\"\n";
        for (section, own) in [
            (FILE.to_owned(), &[("denied.txt", "other.txt")][..]),
            (
                WEBHOOK.to_owned(),
                &[
                    ("hooks.", "hook."),
                    ("com/x", "com:444/x"),
                    ("[[gateway]]", "[[gateway]]\ntimeout = \"5s\""),
                ],
            ),
            (
                format!("{KONG}admin_token = \"env:SECRET\"\n").replace("name = \"kong\"\n", ""),
                &[("8444", "8443"), ("8444", "8444/eu"), ("url", "unproven = true\nurl")],
            ),
        ] {
            let text = format!("{JSON}{keys}{section}name = \"tried\"\n[detection]\nrevoke = 10\n");
            let original = of(&text, &SECRETS);
            assert_eq!(original.len(), 32);
            let mut seen = BTreeSet::from([original.clone()]);
            let others = [
                ("revoke = 10", "revoke = 11"),
                ("from = [\"key\"]", "from = [\"key\", \"user\"]"),
                ("hmac-sha256\"\nsecret = \"env:ALICE\"", "sha256\""),
                ("key = \"/k\"", "key = \"/other\""),
            ];
            for (from, to) in others.iter().chain(own) {
                assert!(text.contains(from), "{from}");
                assert!(seen.insert(of(&text.replacen(from, to, 1), &SECRETS)), "{from}");
            }
            // Another secret is no other gateway, nor is another source whose keys are found alike.
            let secrets = SECRETS
                .map(|(name, value)| (name, if name == "TOKEN" { value } else { "another-of-16-bytes" }));
            assert_eq!(of(&text, &secrets), original);
            let other = JSON.replace("\"a\"", "\"b\"");
            assert_eq!(of(&format!("{other}{text}"), &SECRETS), original);
            assert_eq!(of(&text.replace("com/x", "com/y"), &SECRETS), original);
        }
    }

    #[test]
    fn problems_of_gateways_are_reported() {
        let live = "acts on keys, which needs [state]: a job that forgets which keys are suspended can't let them in again";
        for (lines, expected) in [
            (
                "[[gateway]]".to_owned(),
                "line 6: gateway[0].kind: missing, allowed: file, topic, webhook, kong, apisix, aws-apigateway".to_owned(),
            ),
            (
                "[[gateway]]\nkind = \"file\"".to_owned(),
                "line 6: gateway[0].path: missing, allowed: a path, absolute or relative to the configuration file".to_owned(),
            ),
            (
                "[[gateway]]\nkind = \"topic\"\npath = \"x\"".to_owned(),
                "line 6: gateway[0]: needs [sink.kafka], whose topic `denied` it follows\n\
                 line 8: gateway[0].path: has no meaning here, allowed: only beside kind = \"file\""
                    .to_owned(),
            ),
            (format!("{FILE}mode = \"live\""), format!("line 9: gateway[0].mode: {live}")),
            (
                format!("{FILE}[alerts.policy]\nmode = \"live\""),
                format!("line 6: gateway[0]: {live}"),
            ),
            (
                FILE.repeat(2),
                "line 9: gateway[1]: \"gateway\" names another gateway too, allowed: names that differ".to_owned(),
            ),
            (
                format!("{FILE}name = \"policy\""),
                "line 9: gateway.\"policy\".name: \"policy\" can't name a gateway, allowed: neither policy, nor tables, nor a name of [http.people]".to_owned(),
            ),
            (
                format!("{FILE}url = \"https://x.example/\"\nsecret = \"env:SECRET\"\nunproven = true"),
                "line 9: gateway[0].url: has no meaning here, allowed: only beside kind = \"webhook\", \"kong\", \"apisix\" or \"aws-apigateway\"\n\
                 line 10: gateway[0].secret: has no meaning here, allowed: only beside kind = \"webhook\"\n\
                 line 11: gateway[0].unproven: has no meaning here, allowed: only beside kind = \"kong\", \"apisix\" or \"aws-apigateway\""
                    .to_owned(),
            ),
            (
                format!("{WEBHOOK}token = \"env:TOKEN\""),
                "line 10: gateway[0].token: needs [http], where the gateway reports outcomes".to_owned(),
            ),
            (
                format!("{WEBHOOK}token = \"env:ALICE\"\n[http.people]\nalice = \"env:ALICE\""),
                "line 10: gateway[0].token: is the token of somebody else, too, allowed: a token of its own".to_owned(),
            ),
            (
                KONG.replace("8444", "8444/?x"),
                "line 8: gateway.\"kong\".url: has a query, which an Admin API hasn't, allowed: https://host/path (http only where allow_private names the host), without user, password and fragment, without a query".to_owned(),
            ),
            (
                KONG.replace("\"kong\"\nurl", "\"apisix\"\nurl"),
                "line 6: gateway.\"kong\".admin_token: missing, allowed: \"env:NAME\" or \"file:PATH\", never the secret itself".to_owned(),
            ),
            (
                format!("{KONG}[keys]\nhash = \"prehashed\""),
                "line 6: gateway.\"kong\": can't prove that a credential holds the key of an incident, as no source has hash = \"sha256\" or \"hmac-sha256\"; add unproven = true if the table of keys is to be trusted".to_owned(),
            ),
            (
                "[[gateway]]\nkind = \"aws-apigateway\"".to_owned(),
                "line 6: gateway[0].region: missing, allowed: the name of a region such as \"eu-central-1\", of a-z, 0-9 and -, at most 32 bytes\n\
                 line 6: gateway[0].access_key_id: missing, allowed: \"env:NAME\" or \"file:PATH\", never the secret itself\n\
                 line 6: gateway[0].secret_access_key: missing, allowed: \"env:NAME\" or \"file:PATH\", never the secret itself"
                    .to_owned(),
            ),
            (
                AWS.replace("eu-central-1", "eu.example/"),
                "line 8: gateway[0].region: found \"eu.example/\", allowed: the name of a region such as \"eu-central-1\", of a-z, 0-9 and -, at most 32 bytes".to_owned(),
            ),
            (
                format!("{AWS}access_key_id = \"env:SECRET\"\nurl = \"https://x.example/?a\"\nadmin_token = \"env:TOKEN\""),
                "line 10: gateway[0].access_key_id: stands beside credentials_file, allowed: one of both\n\
                 line 11: gateway[0].url: has a query, which an Admin API hasn't, allowed: https://host/path (http only where allow_private names the host), without user, password and fragment, without a query\n\
                 line 12: gateway[0].admin_token: has no meaning here, allowed: only beside kind = \"kong\" or \"apisix\""
                    .to_owned(),
            ),
            (
                format!("{KONG}region = \"eu-central-1\""),
                "line 10: gateway.\"kong\".region: has no meaning here, allowed: only beside kind = \"aws-apigateway\"".to_owned(),
            ),
        ] {
            let found = parse_with(&format!("{SMALL}{lines}"), &SECRETS);
            assert_eq!(found.unwrap_err().to_string(), expected, "{lines}");
        }
    }

    #[test]
    fn gateways_that_are_called_have_an_address_and_their_secrets() {
        let endpoint = |host: &str, port, target: &str| Endpoint {
            url: WebhookUrl { tls: true, host: host.to_owned(), port, target: Secret::new(target) },
            allow_private: Vec::new(),
            timeout_ms: 10_000,
        };
        let secret = || Secret::new("0123456789abcdef");
        let hooks = endpoint("hooks.example.com", 443, "/x");
        assert_eq!(
            of(WEBHOOK).map(|of| of.kind),
            Some(GatewayKind::Webhook { endpoint: hooks, secret: secret() })
        );
        let kong =
            AdminApi { endpoint: endpoint("kong.example.com", 8444, "/"), token: None, unproven: false };
        assert_eq!(of(KONG).map(|of| of.kind), Some(GatewayKind::Kong(kong.clone())));
        let apisix = KONG.replace("\"kong\"\nurl", "\"apisix\"\nurl");
        let apisix = format!("{apisix}admin_token = \"env:SECRET\"\nunproven = true\ntimeout = \"5s\"");
        let expected = AdminApi {
            endpoint: Endpoint { timeout_ms: 5_000, ..kong.endpoint },
            token: Some(secret()),
            unproven: true,
        };
        assert_eq!(of(&apisix).map(|of| of.kind), Some(GatewayKind::Apisix(expected)));
        let usual = endpoint("apigateway.eu-central-1.amazonaws.com", 443, "/");
        let expected = AwsApi {
            endpoint: usual,
            region: "eu-central-1".to_owned(),
            credentials: AwsCredentials::File("/etc/keytide/aws".into()),
            unproven: false,
        };
        assert_eq!(of(AWS).map(|of| of.kind), Some(GatewayKind::Aws(expected.clone())));
        let keys = "access_key_id = \"env:TOKEN\"\nsecret_access_key = \"env:SECRET\"\nurl = \"https://vpce.example/\"";
        let expected = AwsApi {
            endpoint: endpoint("vpce.example", 443, "/"),
            credentials: AwsCredentials::Keys {
                access_key_id: Secret::new("a-token-of-a-gateway"),
                secret_access_key: secret(),
            },
            ..expected
        };
        let of_keys = of(&AWS.replace("credentials_file = \"aws\"", keys));
        assert_eq!(of_keys.map(|of| of.kind), Some(GatewayKind::Aws(expected)));
        let http = with_secrets(&format!("{WEBHOOK}token = \"env:TOKEN\"\n[http]")).http.unwrap();
        let token = Secret::new("a-token-of-a-gateway");
        assert_eq!(http.gateways, [("gateway".to_owned(), token)].into());
        let several = with_secrets(&format!("{FILE}{WEBHOOK}name = \"hook\"\n{KONG}"));
        let names: Vec<String> = several.gateways.into_iter().map(|of| of.name).collect();
        assert_eq!(names, ["gateway", "hook", "kong"]);
    }
}
