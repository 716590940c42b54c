//! The tables' columns, and how a row becomes a change.

use std::net::IpAddr;

use hashbrown::HashSet;
use ipnet::IpNet;
use keytide_config::KeyHash;
use keytide_dataflow::model::{
    Definition, KeyId, KeyKind, KeyRow, KeyState, NameId, PlanRow, Policy, SubscriptionRow, TableChange,
    TableRow,
};

use super::row::{Fault, Row};
use crate::geo::parse_asn;

const STATES: [(&str, KeyState); 3] =
    [("active", KeyState::Active), ("suspended", KeyState::Suspended), ("revoked", KeyState::Revoked)];
const KINDS: [(&str, KeyKind); 2] = [("secret", KeyKind::Secret), ("publishable", KeyKind::Publishable)];
const POLICIES: [(&str, Policy); 4] = [
    ("observe", Policy::Observe),
    ("alert", Policy::Alert),
    ("suspend", Policy::Suspend),
    ("revoke", Policy::Revoke),
];

const KEY_COLUMNS: [&str; 10] = [
    "subscription",
    "state",
    "kind",
    "created_at",
    "revoked_at",
    "last_used_at",
    "valid_from",
    "consumer",
    "credential",
    "allow_list",
];
const SUBSCRIPTION_COLUMNS: [&str; 7] =
    ["id", "customer", "plan", "contacts", "time_zone", "billing_anchor", "started_at"];
const PLAN_COLUMNS: [&str; 3] = ["id", "name", "policy"];

/// A table.
pub(super) enum Table {
    Keys(KeyForms),
    Subscriptions,
    Plans,
}

/// What may name a key.
#[derive(Default)]
pub(super) struct KeyForms {
    /// A name (`hash = "none"`), in the column `key_id`.
    named: bool,
    /// A hash, in the column `key_hash`.
    hashed: bool,
    /// The hash may be any, not just 32 bytes.
    any_hash: bool,
    /// The hash may stand after `sha256:`.
    prefixed: bool,
}

impl Table {
    /// `keys`, as the sources' `hashes` need it.
    pub(super) fn keys<'a>(hashes: impl IntoIterator<Item = &'a KeyHash>) -> Self {
        let mut forms = KeyForms::default();
        for hash in hashes {
            match hash {
                KeyHash::None => forms.named = true,
                KeyHash::Sha256 => (forms.hashed, forms.prefixed) = (true, true),
                KeyHash::HmacSha256 { .. } => forms.hashed = true,
                KeyHash::Prehashed => (forms.hashed, forms.prefixed, forms.any_hash) = (true, true, true),
            }
        }
        // Nothing to join with yet: still a table of hashes.
        forms.hashed |= !forms.named;
        Self::Keys(forms)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Subscriptions => "subscriptions",
            Self::Plans => "plans",
        }
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
        }
    }

    /// Columns that must be there, each with its alternatives.
    pub(super) fn required(&self) -> Vec<&'static [&'static str]> {
        match self {
            Self::Keys(forms) => vec![forms.columns(), &["subscription"]],
            Self::Subscriptions | Self::Plans => vec![&["id"]],
        }
    }

    /// Adds the changes of a row to `output`; nothing if it is bad.
    pub(super) fn accept(&self, row: &Row<'_>, output: &mut Output) -> Result<(), Fault> {
        match self {
            Self::Keys(forms) => accept_key(forms, row, output),
            Self::Subscriptions => accept_subscription(row, output),
            Self::Plans => accept_plan(row, output),
        }
    }
}

impl KeyForms {
    fn columns(&self) -> &'static [&'static str] {
        match (self.hashed, self.named) {
            (true, true) => &["key_hash", "key_id"],
            (false, true) => &["key_id"],
            (_, false) => &["key_hash"],
        }
    }

    /// The key with a hash.
    fn hashed(&self, text: &str) -> Result<KeyId, Fault> {
        let digits = if self.prefixed { text.strip_prefix("sha256:").unwrap_or(text) } else { text };
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

fn accept_key(forms: &KeyForms, row: &Row<'_>, output: &mut Output) -> Result<(), Fault> {
    let hash = row.text("key_hash")?.map(|hash| forms.hashed(hash)).transpose()?;
    let name = row.text("key_id")?;
    let named = name.map(KeyId::from_name);
    if named.is_some_and(KeyId::is_bucket) {
        return Err("`key_id` is a reserved name".to_owned());
    }
    if hash.is_none() && named.is_none() {
        return Err(format!("`{}` is required", forms.columns().join("` or `")));
    }
    let subscription = row.required("subscription")?;
    let state = row.one_of("state", &STATES)?;
    let kind = row.one_of("kind", &KINDS)?;
    let created_at = row.time("created_at")?;
    let revoked_at = row.time("revoked_at")?;
    let last_used_at = row.time("last_used_at")?;
    let valid_from = row.time("valid_from")?;
    row.text("consumer")?;
    row.text("credential")?;
    row.check_list(
        "allow_list",
        is_allowance,
        "networks (CIDR), country codes and AS numbers such as AS64500",
    )?;
    row.check_list("contact", |_| true, "addresses")?;

    if let (Some(id), Some(name)) = (named, name) {
        output.definitions.push(Definition::Key { id, name: name.into(), month: None });
    }
    let subscription = output.name(subscription);
    for key in hash.into_iter().chain(named) {
        output.push(TableRow::Key(KeyRow {
            key,
            subscription,
            valid_from,
            state,
            kind,
            created_at,
            revoked_at,
            last_used_at,
            consumer: NameId::NONE,
            credential: NameId::NONE,
            allowed: Box::default(),
            contact: NameId::NONE,
        }));
    }
    Ok(())
}

fn accept_subscription(row: &Row<'_>, output: &mut Output) -> Result<(), Fault> {
    let id = row.required("id")?;
    let customer = row.text("customer")?.unwrap_or_default();
    let plan = row.text("plan")?.unwrap_or_default();
    let time_zone = row.text("time_zone")?.unwrap_or_default();
    if !time_zone.is_empty() && !is_time_zone(time_zone) {
        return Err("`time_zone` must be an IANA name such as Europe/Berlin".to_owned());
    }
    let billing_anchor = match row.text("billing_anchor")? {
        None => 0,
        Some(day) => parse_day(day).ok_or("`billing_anchor` must be a day of the month, 1 to 31")?,
    };
    let started_at = row.time("started_at")?;
    row.check_list("contacts", |_| true, "addresses")?;

    let row = SubscriptionRow {
        id: output.name(id),
        customer: output.name(customer),
        plan: output.name(plan),
        time_zone: output.name(time_zone),
        billing_anchor,
        started_at,
        contacts: NameId::NONE,
    };
    output.push(TableRow::Subscription(row));
    Ok(())
}

fn accept_plan(row: &Row<'_>, output: &mut Output) -> Result<(), Fault> {
    let id = row.required("id")?;
    let name = row.text("name")?.unwrap_or(id);
    let policy = row.one_of("policy", &POLICIES)?;

    let row = PlanRow { id: output.name(id), name: output.name(name), policy };
    output.push(TableRow::Plan(row));
    Ok(())
}

fn parse_day(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|day| digits && (1..=31).contains(day))
}

/// The shape of an IANA name. Whether such a zone exists is known where a zone is used.
fn is_time_zone(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte))
    };
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.split('/').all(part)
}

/// A network, an address, a country or an AS number.
fn is_allowance(text: &str) -> bool {
    let is_country = text.len() == 2 && text.bytes().all(|letter| letter.is_ascii_alphabetic());
    let is_asn = || !text.starts_with(|first: char| first.is_ascii_digit()) && parse_asn(text).is_some();
    is_country || is_asn() || text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok()
}

/// What accepted rows become.
#[derive(Default)]
pub(super) struct Output {
    changes: Vec<TableChange>,
    definitions: Vec<Definition>,
    defined: HashSet<NameId>,
    offset: u64,
}

impl Output {
    pub(super) fn begin_table(&mut self) {
        self.offset = 0;
    }

    /// What was accepted so far, to begin anew.
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

    fn name(&mut self, text: &str) -> NameId {
        let id = NameId::new(text);
        if id.is_some() && self.defined.insert(id) {
            self.definitions.push(Definition::Name { id, text: text.into() });
        }
        id
    }
}
