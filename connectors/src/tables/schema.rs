//! Defines the tables' columns, and turns rows into changes.

use std::net::IpAddr;
use std::str::FromStr;

use hashbrown::HashSet;
use ipnet::IpNet;
use keytide_billing::{
    Currency, Exact, Measure, PeriodKind, PriceModel, QuotaLimit, QuotaThresholds, TermsFault, TierRow,
    parse_count, parse_limit, zone_name,
};
use keytide_config::{ApiRole, KeyHash};
use keytide_dataflow::model::{
    Allowance, Country, Definition, KeyId, KeyKind, KeyPlace, KeyRow, KeyState, LeakRow, NameId, PlanFees,
    PlanRow, Policy, PriceRow, QuotaHolder, QuotaRow, SubscriptionRow, TableChange, TableRow, TokenDigest,
    TokenRole, TokenRow,
};
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

use super::VALUE_BYTES;
use super::row::{Fault, RawRow, first_words, parse_flag, parse_time, word_of};
use crate::decode::{SecretHash, cut, holds, redacted};
use crate::geo::{mapped, parse_asn};

/// Words for a key's state, in any case.
const STATES: [(&str, KeyState); 3] = [
    ("active enabled enable true 1 yes y t on ok valid approved", KeyState::Active),
    (
        "suspended disabled disable false 0 no n f off inactive paused blocked locked frozen pending",
        KeyState::Suspended,
    ),
    (
        "revoked deleted removed expired terminated cancelled canceled invalid archived rejected",
        KeyState::Revoked,
    ),
];
const KINDS: [(&str, KeyKind); 2] =
    [("secret private", KeyKind::Secret), ("publishable public", KeyKind::Publishable)];
const POLICIES: [(&str, Policy); 4] = [
    ("observe", Policy::Observe),
    ("alert", Policy::Alert),
    ("suspend", Policy::Suspend),
    ("revoke", Policy::Revoke),
];

const ROLES: [(&str, ApiRole); 4] = [
    ("admin", ApiRole::Admin),
    ("ops", ApiRole::Ops),
    ("check", ApiRole::Check),
    ("consumer", ApiRole::Consumer),
];

const KEY_COLUMNS: [&str; 11] = [
    "subscription",
    "state",
    "kind",
    "created_at",
    "revoked_at",
    "last_used_at",
    "valid_from",
    "consumer",
    "credential",
    "gateway",
    "allow_list",
];
const SUBSCRIPTION_COLUMNS: [&str; 8] =
    ["id", "customer", "plan", "contacts", "time_zone", "billing_anchor", "valid_from", "started_at"];
const PLAN_COLUMNS: [&str; 7] = ["id", "name", "policy", "currency", "base_fee", "minimum", "maximum"];
const QUOTA_COLUMNS: [&str; 8] =
    ["plan", "subscription", "metric", "period", "limit", "hard", "notify", "valid_from"];
const PRICE_COLUMNS: [&str; 12] = [
    "plan",
    "item",
    "metric",
    "model",
    "unit",
    "up_to",
    "unit_price",
    "flat_price",
    "included",
    "package",
    "currency",
    "valid_from",
];
const TOKEN_COLUMNS: [&str; 6] = ["token_hash", "role", "customer", "expires_at", "state", "name"];
const LEAK_COLUMNS: [&str; 3] = ["source", "url", "reported_at"];

/// The most bytes of an address (RFC 5321 with erratum 1690).
const ADDRESS_BYTES: usize = 254;
/// The most bytes of a leaked token.
const TOKEN_BYTES: usize = 4_096;
/// The most bytes of a URL. A longer one is cut.
const URL_BYTES: usize = 2_048;

/// A table, with the forms in which its rows name keys.
pub(super) enum TableSchema {
    Keys(KeyForms),
    Subscriptions,
    Plans,
    Leaks(LeakForms),
    Quotas,
    Prices,
    Tokens,
}

/// A key whose id is made of its name.
type NamedKey<'r> = (KeyId, &'r str);

/// The forms in which a row may name a leaked key.
pub(super) struct LeakForms {
    keys: KeyForms,
    /// The hashes by which a token becomes ids.
    hashes: Vec<SecretHash>,
}

/// The forms in which a row may name a key.
#[derive(Default)]
pub(super) struct KeyForms {
    /// True if it may be a name (`hash = "none"`), in the column `key_id`.
    named: bool,
    /// True if it may be a hash, in the column `key_hash`.
    hashed: bool,
    /// True if the hash may be of any length, not just 32 bytes.
    any_hash: bool,
    /// True if the hash may stand behind `sha256:`.
    prefixed: bool,
}

impl TableSchema {
    /// Returns the table `keys` as the sources' `hashes` need it.
    pub(super) fn keys<'a>(hashes: impl IntoIterator<Item = &'a KeyHash>) -> Self {
        let mut forms = KeyForms::default();
        hashes.into_iter().for_each(|hash| forms.add(hash));
        // Without any source the table has hashes.
        forms.hashed |= !forms.named;
        Self::Keys(forms)
    }

    /// Returns the table `leaks` as the sources' `hashes` need it. A token becomes one id for each way in which they
    /// hash secrets.
    ///
    /// Sources that log hashes (`prehashed`) don't name the kind of hash, so a token counts by its SHA-256. It can't be
    /// an id itself, because ids are shown. For the same reason it is never taken for an identifier (`none`).
    pub(super) fn leaks<'a>(hashes: impl IntoIterator<Item = &'a KeyHash>) -> Self {
        let mut keys = KeyForms::default();
        let (mut plain, mut secrets) = (false, Vec::new());
        for hash in hashes {
            keys.add(hash);
            match hash {
                KeyHash::Sha256 | KeyHash::Prehashed => plain = true,
                KeyHash::HmacSha256 { secret } if !secrets.contains(&secret) => secrets.push(secret),
                KeyHash::HmacSha256 { .. } | KeyHash::None => {}
            }
        }
        keys.hashed |= !keys.named;
        let mut hashes: Vec<SecretHash> = secrets.into_iter().map(SecretHash::keyed).collect();
        hashes.extend((plain || (keys.hashed && hashes.is_empty())).then_some(SecretHash::Sha256));
        Self::Leaks(LeakForms { keys, hashes })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Subscriptions => "subscriptions",
            Self::Plans => "plans",
            Self::Leaks(_) => "leaks",
            Self::Quotas => "quotas",
            Self::Prices => "prices",
            Self::Tokens => "tokens",
        }
    }

    /// Returns whether the API alone reads the table. Such a table fails closed, and no checkpoint has its rows.
    pub(super) fn is_of_api(&self) -> bool {
        matches!(self, Self::Tokens)
    }

    pub(super) fn columns(&self) -> Vec<&'static str> {
        match self {
            Self::Keys(forms) => {
                let mut columns = forms.columns().to_vec();
                columns.extend(KEY_COLUMNS);
                columns.push("contact");
                columns
            }
            Self::Subscriptions => SUBSCRIPTION_COLUMNS.to_vec(),
            Self::Plans => PLAN_COLUMNS.to_vec(),
            Self::Leaks(forms) => forms.columns().iter().copied().chain(LEAK_COLUMNS).collect(),
            Self::Quotas => QUOTA_COLUMNS.to_vec(),
            Self::Prices => PRICE_COLUMNS.to_vec(),
            Self::Tokens => TOKEN_COLUMNS.to_vec(),
        }
    }

    /// Returns the columns that must be there, each with its alternatives.
    pub(super) fn required(&self) -> Vec<&'static [&'static str]> {
        match self {
            Self::Keys(forms) => vec![forms.columns(), &["subscription"]],
            Self::Subscriptions | Self::Plans => vec![&["id"]],
            Self::Leaks(forms) => vec![forms.columns()],
            Self::Quotas => vec![&["plan", "subscription"], &["metric"], &["period"], &["limit"]],
            Self::Prices => vec![&["plan"], &["item"], &["metric"], &["unit_price", "flat_price"]],
            Self::Tokens => vec![&["token_hash"], &["role"]],
        }
    }

    /// Adds the changes of a row to `output`, unless the row is bad.
    pub(super) fn accept(&self, row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
        match self {
            Self::Keys(forms) => accept_key(forms, row, output),
            Self::Subscriptions => accept_subscription(row, output),
            Self::Plans => accept_plan(row, output),
            Self::Leaks(forms) => accept_leak(forms, row, output),
            Self::Quotas => accept_quota(row, output),
            Self::Prices => accept_price(row, output),
            Self::Tokens => accept_token(row, output),
        }
    }
}

impl LeakForms {
    fn columns(&self) -> &'static [&'static str] {
        match (self.keys.hashed, self.keys.named) {
            (true, true) => &["token", "key_hash", "key_id"],
            (false, true) => &["key_id"],
            (_, false) => &["token", "key_hash"],
        }
    }
}

impl KeyForms {
    fn add(&mut self, hash: &KeyHash) {
        match hash {
            KeyHash::None => self.named = true,
            KeyHash::Sha256 => (self.hashed, self.prefixed) = (true, true),
            KeyHash::HmacSha256 { .. } => self.hashed = true,
            KeyHash::Prehashed => (self.hashed, self.prefixed, self.any_hash) = (true, true, true),
        }
    }

    /// Returns the key that a row names in `key_hash`, and the one that it names in `key_id`, with its name.
    fn keys<'r>(&self, row: &'r RawRow<'_>) -> Result<(Option<KeyId>, Option<NamedKey<'r>>), Fault> {
        let hash = row.text("key_hash")?.map(|hash| self.hashed(hash)).transpose()?;
        let named = row.text("key_id")?.map(|name| (KeyId::from_name(name), name));
        match named {
            Some((key, _)) if key.is_bucket() => Err("`key_id` is a reserved name".to_owned()),
            named => Ok((hash, named)),
        }
    }

    fn columns(&self) -> &'static [&'static str] {
        match (self.hashed, self.named) {
            (true, true) => &["key_hash", "key_id"],
            (false, true) => &["key_id"],
            (_, false) => &["key_hash"],
        }
    }

    /// The key id of a hash in one of the allowed forms.
    fn hashed(&self, text: &str) -> Result<KeyId, Fault> {
        let digits = hash_digits(text, self.prefixed);
        let length = if self.any_hash { 32..=128 } else { 64..=64 };
        let id = digits.get(..32).filter(|_| {
            length.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        let id = id.and_then(|id| u128::from_str_radix(id, 16).ok());
        id.map(KeyId).filter(|key| !key.is_bucket()).ok_or_else(|| {
            let digits = if self.any_hash { "32 to 128" } else { "64" };
            format!("`key_hash` is not a hash: it must have {digits} hexadecimal digits")
        })
    }
}

/// Returns a hash without the prefix that says so, if it may have one.
fn hash_digits(text: &str, is_prefixed: bool) -> &str {
    let digits = if is_prefixed { text.strip_prefix("sha256:").unwrap_or(text) } else { text };
    // PostgreSQL writes a `bytea` with this prefix.
    digits.strip_prefix("\\x").unwrap_or(digits)
}

fn accept_key(forms: &KeyForms, row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let (hash, named) = forms.keys(row)?;
    if hash.is_none() && named.is_none() {
        return Err(format!("`{}` is required", forms.columns().join("` or `")));
    }
    let subscription = row.required("subscription")?;
    let state = row.one_of("state", &STATES);
    let kind = row.one_of("kind", &KINDS);
    let created_at = row.time("created_at");
    let revoked_at = row.time("revoked_at");
    let last_used_at = row.time("last_used_at");
    let valid_from = row.time("valid_from");
    let consumer = row.optional("consumer").unwrap_or_default();
    let credential = row.optional("credential").unwrap_or_default();
    let gateway = row.optional("gateway").unwrap_or_default();
    let mut allowed =
        row.list("allow_list", allowance, "networks (CIDR), country codes and AS numbers such as AS64500");
    allowed.sort_unstable();
    allowed.dedup();
    let contact = addresses(row, "contact");

    output.key_name(named);
    let subscription = output.name(subscription);
    let place = KeyPlace {
        gateway: output.name(gateway),
        consumer: output.name(consumer),
        credential: output.name(credential),
    };
    let contact = output.name(&contact);
    for key in hash.into_iter().chain(named.map(|(key, _)| key)) {
        output.push(TableRow::Key(KeyRow {
            key,
            subscription,
            valid_from,
            state,
            kind,
            created_at,
            revoked_at,
            last_used_at,
            place,
            allowed: allowed.as_slice().into(),
            contact,
        }));
    }
    Ok(())
}

fn accept_subscription(row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let id = row.required("id")?;
    let customer = row.optional("customer").unwrap_or_default();
    let plan = row.optional("plan").unwrap_or_default();
    let time_zone = row.known("time_zone", zone_name).unwrap_or_default();
    let billing_anchor =
        row.parsed("billing_anchor", parse_day, "a day of the month, 1 to 31").unwrap_or_default();
    let valid_from = row.time("valid_from");
    let started_at = row.time("started_at");
    let contacts = addresses(row, "contacts");

    let row = SubscriptionRow {
        id: output.name(id),
        customer: output.name(customer),
        plan: output.name(plan),
        time_zone: output.name(time_zone),
        billing_anchor,
        valid_from,
        started_at,
        contacts: output.name(&contacts),
    };
    output.push(TableRow::Subscription(row));
    Ok(())
}

fn accept_plan(row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let id = row.required("id")?;
    let name = row.optional("name").unwrap_or(id);
    let policy = row.one_of("policy", &POLICIES);

    let currency = row.exact("currency", str::parse)?;
    let base_fee = row.exact("base_fee", str::parse)?.unwrap_or_default();
    let (minimum, maximum): (Option<Exact>, Option<Exact>) =
        (row.exact("minimum", str::parse)?, row.exact("maximum", str::parse)?);
    if minimum.zip(maximum).is_some_and(|(minimum, maximum)| minimum > maximum) {
        return Err(TermsFault::<&str>::Bounds.to_string());
    }

    let fees = Box::new(PlanFees { currency, base_fee, minimum, maximum });
    let row = PlanRow { id: output.name(id), name: output.name(name), policy, fees };
    output.push(TableRow::Plan(row));
    Ok(())
}

fn accept_quota(row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let (holder, name): (fn(NameId) -> QuotaHolder, &str) =
        match (row.name("plan")?, row.name("subscription")?) {
            (Some(plan), None) => (QuotaHolder::Plan, plan),
            (None, Some(subscription)) => (QuotaHolder::Subscription, subscription),
            (None, None) => return Err("`plan` or `subscription` is required".to_owned()),
            (Some(_), Some(_)) => {
                return Err("a quota has `plan` or `subscription`, not both: write two rows".to_owned());
            }
        };
    let empty = |column: &str| format!("`{column}` is empty");
    let measure = row.identifying("metric", in_lower_case::<Measure>)?.ok_or_else(|| empty("metric"))?;
    let period = row.identifying("period", in_lower_case::<PeriodKind>)?.ok_or_else(|| empty("period"))?;
    let limit = row.exact("limit", |text| parse_limit(measure, text))?;
    if limit.is_none() && !row.deleted {
        return Err(empty("limit"));
    }
    let hard = row.exact("hard", parse_flag)?.unwrap_or_default();
    let notify = thresholds(row);
    let valid_from = row.identifying("valid_from", parse_time)?;

    let limit = QuotaLimit { limit: limit.unwrap_or_default(), hard, notify };
    let holder = holder(output.name(name));
    output.push(TableRow::Quota(QuotaRow { holder, measure, period, limit, valid_from }));
    Ok(())
}

/// Returns the percentages at which notice is given: a list, or `none`.
fn thresholds(row: &RawRow<'_>) -> QuotaThresholds {
    let percents = row.list("notify", |text| Some(text.to_owned()), "percentages").join(";");
    let parsed = (!percents.is_empty()).then(|| percents.to_ascii_lowercase().parse()).transpose();
    row.or_unread("notify", parsed.map_err(|fault| format!("`notify` {fault}"))).unwrap_or_default()
}

fn accept_price(row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let plan = row.required("plan")?;
    let item = row.required("item")?;
    let measure = row.exact("metric", in_lower_case::<Measure>)?;
    if measure.is_none() && !row.deleted {
        return Err("`metric` is empty".to_owned());
    }
    let model = row.exact("model", in_lower_case::<PriceModel>)?.unwrap_or(PriceModel::Unit);
    let unit = row.exact("unit", str::parse)?;
    let up_to = row.identifying("up_to", parse_count)?;
    let unit_price = row.exact("unit_price", str::parse)?;
    let flat_price = row.exact("flat_price", str::parse)?;
    if unit_price.is_none() && flat_price.is_none() && !row.deleted {
        return Err("`unit_price` or `flat_price` is required: write 0 if the tier is free".to_owned());
    }
    let included = row.exact("included", parse_count)?;
    let package = row.exact("package", parse_count)?;
    let currency = row.exact::<Currency, _>("currency", str::parse)?;
    let valid_from = row.identifying("valid_from", parse_time)?;

    let tier = TierRow {
        measure: measure.unwrap_or(Measure::Calls),
        model,
        unit,
        up_to,
        unit_price: unit_price.unwrap_or_default(),
        flat_price: flat_price.unwrap_or_default(),
        included,
        package,
        currency,
    };
    let row = PriceRow { plan: output.name(plan), item: output.name(item), tier, valid_from };
    output.push(TableRow::Price(Box::new(row)));
    Ok(())
}

/// All of a row must be right, as a token that opens more than was meant is worse than one that opens nothing.
fn accept_token(row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let empty = |column: &str| format!("`{column}` is empty");
    let digest = row.identifying("token_hash", parse_digest)?.ok_or_else(|| empty("token_hash"))?;
    let name = row.exact("name", |text| Ok::<_, Fault>(NameId::new(text)))?.unwrap_or_default();
    let customer = row.exact("customer", |text| Ok::<_, Fault>(NameId::new(text)))?;
    let role = match (row.exact("role", |text| named(text, &ROLES))?, customer) {
        (Some(ApiRole::Consumer), Some(customer)) => TokenRole::Consumer(customer),
        (Some(ApiRole::Admin), None) => TokenRole::Admin,
        (Some(ApiRole::Ops), None) => TokenRole::Ops,
        (Some(ApiRole::Check), None) => TokenRole::Check,
        // It doesn't matter what a deleted row opened.
        _ if row.deleted => TokenRole::Consumer(NameId::NONE),
        (Some(ApiRole::Consumer), None) => {
            return Err("`customer` is empty, and a consumer has one".to_owned());
        }
        (Some(_), Some(_)) => {
            return Err("`customer` has no meaning beside this `role`: only a consumer has one".to_owned());
        }
        (None, _) => return Err(empty("role")),
    };
    let expires_at = row.exact("expires_at", parse_time)?;
    let state = row.exact("state", |text| named(text, &STATES))?.unwrap_or_default();
    output.push(TableRow::Token(TokenRow { digest, name, role, expires_at, state }));
    Ok(())
}

/// Parses the SHA-256 of a token.
fn parse_digest(text: &str) -> Result<TokenDigest, &'static str> {
    let digits = hash_digits(text, true);
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("is not a hash: it must have 64 hexadecimal digits, the SHA-256 of the token");
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_default();
    }
    // Whoever shows an empty header would show it.
    if digest == <[u8; 32]>::from(Sha256::digest(b"")) {
        return Err("is the hash of an empty text: hash the token");
    }
    Ok(TokenDigest(digest))
}

/// Returns the value that goes with a name, in any case. The error says which names there are.
fn named<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, Fault> {
    word_of(text, names).ok_or_else(|| format!("must be one of {}", first_words(names)))
}

/// Parses a name, in any case.
fn in_lower_case<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.to_ascii_lowercase().parse()
}

fn accept_leak(forms: &LeakForms, row: &RawRow<'_>, output: &mut AcceptedRows) -> Result<(), Fault> {
    let token = row.text_of("token", TOKEN_BYTES)?;
    let (hash, named) = forms.keys.keys(row)?;
    let source = without_token(row.optional("source").unwrap_or_default(), token, VALUE_BYTES);
    let url = without_token(row.optional_of("url", usize::MAX).unwrap_or_default(), token, URL_BYTES);
    let reported_at = row.time("reported_at");

    let of_token =
        token.into_iter().flat_map(|token| forms.hashes.iter().map(|hash| hash.id(token.as_bytes())));
    let mut keys: SmallVec<[KeyId; 4]> = of_token.chain(hash).chain(named.map(|(key, _)| key)).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return Err(format!("`{}` is required", forms.columns().join("` or `")));
    }
    output.key_name(named);
    let (source, url) = (output.name(&source), output.name(&url));
    for key in keys {
        output.push(TableRow::Leak(LeakRow { key, source, url, reported_at }));
    }
    Ok(())
}

/// Takes the token out of a report's text, and cuts the text.
fn without_token(text: &str, token: Option<&str>, limit: usize) -> String {
    let Some(token) = token else { return cut(text, limit).to_owned() };
    let mut text = text.replace(token, "{key}");
    if holds(&text, token.as_bytes()) {
        text = redacted(&text, token.as_bytes());
    }
    text.truncate(text.floor_char_boundary(limit));
    text
}

/// Returns the addresses in a list, separated by `;`, each only once.
fn addresses(row: &RawRow<'_>, column: &'static str) -> String {
    let mut addresses = row.list(
        column,
        |text| is_address(text).then(|| text.to_owned()),
        "mail addresses such as ops@example.com, at most 254 bytes each",
    );
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(address.clone()));
    addresses.join(";")
}

/// Returns whether a text has the form of a mail address, with one `@` between texts without blanks and separators.
fn is_address(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "@,;:<>()[]\\\"".contains(c))
    };
    text.len() <= ADDRESS_BYTES
        && text.split_once('@').is_some_and(|(local, domain)| is_part(local) && is_part(domain))
}

fn parse_day(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|day| digits && (1..=31).contains(day))
}

/// Parses a network, an address, a country or an AS number.
fn allowance(text: &str) -> Option<Allowance> {
    if text.len() == 2 && text.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return Some(Country::new(text))
            .filter(|country| *country != Country::UNKNOWN)
            .map(Allowance::Country);
    }
    if !text.starts_with(|first: char| first.is_ascii_digit())
        && let Some(asn) = parse_asn(text)
    {
        return Some(Allowance::Asn(asn));
    }
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let (first, bits) = mapped(network);
    Some(Allowance::Network(first, bits))
}

/// Copies the value of a column from `held` to `row`, unless they are rows of different tables.
pub(super) fn keep(column: &str, row: &mut TableRow, held: &TableRow) {
    macro_rules! copy {
        ($row:ident, $held:ident, $($name:literal $($field:ident).+),+) => {
            match column {
                $($name => $row.$($field).+.clone_from(&$held.$($field).+),)+
                _ => {}
            }
        };
    }
    match (row, held) {
        (TableRow::Key(row), TableRow::Key(held)) => copy!(
            row, held, "subscription" subscription, "state" state, "kind" kind, "created_at" created_at,
            "revoked_at" revoked_at, "last_used_at" last_used_at, "valid_from" valid_from, "consumer" place.consumer,
            "credential" place.credential, "gateway" place.gateway, "allow_list" allowed, "contact" contact
        ),
        (TableRow::Subscription(row), TableRow::Subscription(held)) => copy!(
            row, held, "customer" customer, "plan" plan, "contacts" contacts, "time_zone" time_zone,
            "billing_anchor" billing_anchor, "valid_from" valid_from, "started_at" started_at
        ),
        (TableRow::Plan(row), TableRow::Plan(held)) => copy!(row, held, "name" name, "policy" policy),
        (TableRow::Leak(row), TableRow::Leak(held)) => {
            copy!(row, held, "source" source, "url" url, "reported_at" reported_at)
        }
        (TableRow::Quota(row), TableRow::Quota(held)) => {
            copy!(row, held, "plan" holder, "subscription" holder, "notify" limit.notify)
        }
        (TableRow::Price(row), TableRow::Price(held)) => copy!(row, held, "plan" plan, "item" item),
        _ => {}
    }
}

/// Returns whether a row has all required columns, once values were copied from held rows.
pub(super) fn is_whole(row: &TableRow) -> bool {
    match row {
        TableRow::Key(row) => row.subscription.is_some(),
        TableRow::Subscription(row) => row.id.is_some(),
        TableRow::Plan(row) => row.id.is_some(),
        TableRow::Leak(_) => true,
        TableRow::Quota(row) => match row.holder {
            QuotaHolder::Plan(id) | QuotaHolder::Subscription(id) => id.is_some(),
        },
        TableRow::Price(row) => row.plan.is_some() && row.item.is_some(),
        // None of its columns is ever left out.
        TableRow::Token(_) => true,
    }
}

/// The changes and definitions that accepted rows become.
#[derive(Default)]
pub(super) struct AcceptedRows {
    changes: Vec<TableChange>,
    definitions: Vec<Definition>,
    defined: HashSet<NameId>,
    offset: u64,
    /// The number of changes before the table that was begun last.
    begun: usize,
}

impl AcceptedRows {
    pub(super) fn begin_table(&mut self) {
        self.offset = 0;
        self.begun = self.changes.len();
    }

    /// Returns the changes of the table that was begun.
    pub(super) fn of_table(&self) -> &[TableChange] {
        &self.changes[self.begun..]
    }

    /// Takes back changes of the table that was begun, by their places in it.
    pub(super) fn take_back(&mut self, is_refused: impl Fn(usize) -> bool) {
        let accepted = self.changes.split_off(self.begun);
        self.offset = 0;
        for (_, change) in accepted.into_iter().enumerate().filter(|(place, _)| !is_refused(*place)) {
            self.push(change.row);
        }
    }

    /// Returns the rows that were accepted so far, and begins anew.
    pub(super) fn take(&mut self) -> (impl Iterator<Item = TableRow> + use<>, Vec<Definition>) {
        let (changes, definitions) = std::mem::take(self).finish();
        (changes.into_iter().map(|change| change.row), definitions)
    }

    pub(super) fn finish(self) -> (Vec<TableChange>, Vec<Definition>) {
        (self.changes, self.definitions)
    }

    fn push(&mut self, row: TableRow) {
        self.changes.push(TableChange { offset: self.offset, row, deleted: false });
        self.offset += 1;
    }

    fn key_name(&mut self, named: Option<NamedKey<'_>>) {
        let name = named.map(|(id, name)| Definition::Key { id, name: name.into(), month: None });
        self.definitions.extend(name);
    }

    fn name(&mut self, text: &str) -> NameId {
        let id = NameId::new(text);
        if id.is_some() && self.defined.insert(id) {
            self.definitions.push(Definition::Name { id, text: text.into() });
        }
        id
    }
}
