//! Tokens of those who ask, and the requests that each opens.
//!
//! A token is kept as its SHA-256. A client shows it as `Authorization: Bearer TOKEN`, or in the header `X-Keytide-Token`.
//! A gateway needs the latter where `Authorization` is its client's.
//!
//! Those of the configuration are compared with all bytes of all of them. So the time of an answer says nothing about
//! them. Those of the table may be millions, and are looked up in a map of hashes. The time of that may depend on the hash
//! of what was shown. This is no help to anybody: whoever shows a token knows its hash, and can't choose a token by the
//! hash that it is to have. A token that stands in both is that of the configuration.
//!
//! A row of the table acts as soon as it is read, and its expiry is judged at each request. With a table nothing is open,
//! even if it is empty. Before it is read whoever shows another token is told that it is an outage: gateways take a token
//! that is refused for a denial of their client's call.
//!
//! A third kind are signed links, which open what a consumer's token does.
//!
//! | role | checks | rows | of |
//! |---|---|---|---|
//! | admin | yes | yes | all |
//! | ops | no | yes | all |
//! | check | yes | no | |
//! | consumer | no | yes | one customer; the rest doesn't exist for it |
//!
//! **Limits.** A token of the table takes about 150 bytes here, beside its row.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use hashbrown::HashMap;
use keytide_config::{ApiRole, ApiToken, Secret};
use keytide_dataflow::model::{
    EventTime, KeyState, NameId, TableChange, TableRow, TokenDigest, TokenRole, TokenRow, hex,
};
use sha2::{Digest, Sha256};

use super::links::{Link, Links};

/// The header of a token beside `Authorization`.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-keytide-token");

/// The SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TokenHash {
    /// Returns the hash of a token.
    #[must_use]
    pub fn new(token: &Secret) -> Self {
        Self::of(token.reveal().as_bytes())
    }

    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns whether a request shows the token in `Authorization`, in time that doesn't depend on the bytes.
    #[must_use]
    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|shown| self.equals(&Self::of(shown)))
    }

    /// Compares all bytes, in time that doesn't depend on them.
    fn equals(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// Returns the token after `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes)?;
    let (scheme, token) = shown.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// The holder of the token that a request shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiCaller {
    /// The name of the token, empty where everything is open. Those of the table have a colon in theirs, and those of the
    /// configuration none.
    pub(super) name: Arc<str>,
    pub(super) role: ApiRole,
    /// The customer of a consumer.
    pub(super) customer: Option<NameId>,
    /// The first instant at which its token opens nothing, in ms since the epoch; `None` is never.
    pub(super) expires_at: Option<EventTime>,
}

impl ApiCaller {
    /// Returns the holder of a token of the table. The name stays the same as long as the row names the same holder, or is
    /// about the same token.
    fn of(TokenRow { digest, name, role, expires_at, .. }: &TokenRow) -> Self {
        let (role, customer) = match *role {
            TokenRole::Admin => (ApiRole::Admin, None),
            TokenRole::Ops => (ApiRole::Ops, None),
            TokenRole::Check => (ApiRole::Check, None),
            TokenRole::Consumer(customer) => (ApiRole::Consumer, Some(customer)),
        };
        let name =
            if name.is_some() { format!("name:{:016x}", name.0) } else { format!("hash:{}", hex(&digest.0)) };
        Self { name: name.into(), role, customer, expires_at: *expires_at }
    }

    /// Returns the holder of a signed link.
    fn of_link(Link { customer, expires_at }: &Link) -> Self {
        let customer = NameId::new(customer);
        Self {
            name: format!("link:{:016x}", customer.0).into(),
            role: ApiRole::Consumer,
            customer: Some(customer),
            expires_at: Some(*expires_at),
        }
    }

    /// Returns whether checks and settlements are open to it.
    pub(super) fn may_check(&self) -> bool {
        matches!(self.role, ApiRole::Admin | ApiRole::Check)
    }

    /// Returns whether rows are open to it, of a customer or of all.
    pub(super) fn may_read(&self) -> bool {
        matches!(self.role, ApiRole::Admin | ApiRole::Ops | ApiRole::Consumer)
    }

    /// Returns whether it may see what belongs to a customer; `None` is what belongs to nobody.
    pub(super) fn may_see(&self, customer: Option<NameId>) -> bool {
        match self.customer {
            Some(own) => customer == Some(own),
            None => self.may_read(),
        }
    }
}

/// The tokens of `[tables.tokens]`, as of the rows that were read.
#[derive(Debug, Default)]
pub struct TokenTable {
    tokens: RwLock<HashMap<TokenDigest, ApiCaller>>,
    /// True once all rows were read that were there at the start.
    is_read: AtomicBool,
}

impl TokenTable {
    /// Applies changes of the table, in its order.
    pub fn apply(&self, changes: &[TableChange]) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        for TableChange { row, deleted, .. } in changes {
            let TableRow::Token(row) = row else { continue };
            if *deleted || row.state != KeyState::Active {
                tokens.remove(&row.digest);
            } else {
                tokens.insert(row.digest, ApiCaller::of(row));
            }
        }
    }

    /// Notes that all rows were read that were there at the start.
    pub fn set_read(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    /// Returns the number of active tokens, also of those that expired.
    pub(super) fn len(&self) -> u64 {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Returns the holder of a token that opens something at `now_ms`.
    fn caller(&self, shown: TokenHash, now_ms: u64) -> Option<ApiCaller> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let caller = tokens.get(&TokenDigest(shown.0))?;
        caller.expires_at.is_none_or(|end_ms| now_ms < end_ms).then(|| caller.clone())
    }
}

/// The tokens of the configuration, those of the table if there is one, and those of links if there are pages.
#[derive(Debug)]
pub(super) struct ApiTokens {
    configured: Vec<(TokenHash, ApiCaller)>,
    table: Option<Arc<TokenTable>>,
    links: Option<Links>,
}

impl ApiTokens {
    /// Returns the table, if there is one.
    pub(super) fn table(&self) -> Option<&Arc<TokenTable>> {
        self.table.as_ref()
    }

    /// Returns what signs links, if there are pages.
    pub(super) fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    pub(super) fn new(tokens: &[ApiToken], table: Option<Arc<TokenTable>>, links: Option<Links>) -> Self {
        let of = |ApiToken { name, token, role, customer }: &ApiToken| {
            let customer = customer.as_deref().map(NameId::new);
            let name = name.as_str().into();
            (TokenHash::new(token), ApiCaller { name, role: *role, customer, expires_at: None })
        };
        Self { configured: tokens.iter().map(of).collect(), table, links }
    }

    /// Returns whether all tokens are known that there were at the start. Until then who is refused may be let in later.
    pub(super) fn are_read(&self) -> bool {
        self.table.as_ref().is_none_or(|table| table.is_read.load(Ordering::Acquire))
    }

    /// Returns the caller of a request at `now_ms`. `None` if tokens are asked for, and it shows none of them.
    pub(super) fn caller(&self, headers: &HeaderMap, now_ms: u64) -> Option<ApiCaller> {
        let shown = [headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes), bearer(headers)];
        // Also where everything is open, a link shows one customer: so a portal looks as it will with tokens.
        if let Some(links) = &self.links
            && let Some(link) = shown.iter().flatten().find_map(|token| links.read(token, now_ms))
        {
            return Some(ApiCaller::of_link(&link));
        }
        if self.configured.is_empty() && self.table.is_none() {
            let name = "".into();
            return Some(ApiCaller { name, role: ApiRole::Admin, customer: None, expires_at: None });
        }
        let shown = shown.map(|token| token.map(TokenHash::of));
        // All are compared, so the time says nothing about which it is.
        let found = self.configured.iter().fold(None, |found, (token, caller)| {
            let is_it = shown.iter().flatten().fold(false, |is_it, shown| is_it | token.equals(shown));
            if is_it { Some(caller) } else { found }
        });
        found.cloned().or_else(|| {
            let table = self.table.as_ref()?;
            shown.into_iter().flatten().find_map(|shown| table.caller(shown, now_ms))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_773_576_000_000;

    fn tokens() -> ApiTokens {
        let of = |name: &str, role, customer: Option<&str>| ApiToken {
            name: name.to_owned(),
            token: Secret::new(format!("token-of-{name}")),
            role,
            customer: customer.map(str::to_owned),
        };
        let tokens = [
            of("root", ApiRole::Admin, None),
            of("edge", ApiRole::Check, None),
            of("ops", ApiRole::Ops, None),
            of("acme", ApiRole::Consumer, Some("cus_1")),
        ];
        ApiTokens::new(&tokens, None, None)
    }

    fn caller(pairs: &[(&'static str, &'static str)]) -> Option<ApiCaller> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        tokens().caller(&pairs.collect(), NOW)
    }

    #[test]
    fn a_token_is_shown_in_either_header() {
        let name = |pairs| caller(pairs).map(|caller| caller.name.to_string());
        assert_eq!(name(&[("authorization", "Bearer token-of-edge")]).as_deref(), Some("edge"));
        assert_eq!(name(&[("authorization", "bearer token-of-edge")]).as_deref(), Some("edge"));
        let both = [("authorization", "Bearer a-client-s-key"), ("x-keytide-token", "token-of-edge")];
        assert_eq!(name(&both).as_deref(), Some("edge"));
        for none in [
            &[][..],
            &[("authorization", "token-of-edge")],
            &[("authorization", "Bearer  token-of-edge")],
            &[("authorization", "Bearer ")],
            &[("x-keytide-token", "Bearer token-of-edge")],
            &[("x-keytide-token", "token-of-edge0")],
            &[("x-keytide-token", "")],
        ] {
            assert_eq!(name(none), None, "{none:?}");
        }
    }

    #[test]
    fn roles_open_what_the_header_says() {
        let of = |token| caller(&[("x-keytide-token", token)]).unwrap();
        let (one, other) = (Some(NameId::new("cus_1")), Some(NameId::new("cus_2")));
        for (token, checks, reads, sees) in [
            ("token-of-root", true, true, [true, true, true]),
            ("token-of-edge", true, false, [false, false, false]),
            ("token-of-ops", false, true, [true, true, true]),
            ("token-of-acme", false, true, [true, false, false]),
        ] {
            let caller = of(token);
            assert_eq!((caller.may_check(), caller.may_read()), (checks, reads), "{token}");
            assert_eq!([one, other, None].map(|customer| caller.may_see(customer)), sees, "{token}");
        }
        assert!(ApiTokens::new(&[], None, None).caller(&HeaderMap::new(), NOW).unwrap().may_check());
    }

    fn row(token: &str, role: TokenRole) -> TokenRow {
        let digest = TokenDigest(TokenHash::of(token.as_bytes()).0);
        TokenRow { digest, name: NameId::NONE, role, expires_at: None, state: KeyState::Active }
    }

    fn put(row: TokenRow) -> TableChange {
        TableChange { offset: 0, row: TableRow::Token(row), deleted: false }
    }

    fn shown(token: &str) -> HeaderMap {
        [(TOKEN_HEADER, HeaderValue::from_str(token).unwrap())].into_iter().collect()
    }

    #[test]
    fn an_empty_table_lets_nobody_in_and_a_row_acts_until_it_ends() {
        let table = Arc::<TokenTable>::default();
        let tokens = ApiTokens::new(&[], Some(Arc::clone(&table)), None);
        let caller = |now_ms| tokens.caller(&shown("t"), now_ms);
        assert_eq!((caller(0), tokens.caller(&HeaderMap::new(), 0)), (None, None));
        table.apply(&[put(row("t", TokenRole::Check))]);
        assert!(caller(u64::MAX).unwrap().may_check());
        assert_eq!((tokens.caller(&shown("u"), 0), tokens.caller(&shown(""), 0)), (None, None));
        // It ends with the first millisecond of its expiry, which may come to lie in the past, or in the future again.
        for expires_at in [Some(10), Some(3), Some(20), None] {
            table.apply(&[put(TokenRow { expires_at, ..row("t", TokenRole::Check) })]);
            for now_ms in [0, 2, 3, 9, 10, 19, 20] {
                assert_eq!(caller(now_ms).is_some(), expires_at.is_none_or(|end_ms| now_ms < end_ms));
            }
        }
        for state in [KeyState::Revoked, KeyState::Suspended] {
            table.apply(&[put(TokenRow { state, ..row("t", TokenRole::Admin) })]);
            assert_eq!(caller(0), None, "{state:?}");
            table.apply(&[put(row("t", TokenRole::Ops))]);
            assert_eq!(caller(0).unwrap().role, ApiRole::Ops, "it was let in again");
        }
        table.apply(&[TableChange { deleted: true, ..put(row("t", TokenRole::Ops)) }]);
        assert_eq!(caller(0), None);
    }

    #[test]
    fn tokens_of_the_table_have_names_that_no_other_has_and_stay() {
        let table = Arc::<TokenTable>::default();
        let named =
            |token: &str, name: &str| TokenRow { name: NameId::new(name), ..row(token, TokenRole::Check) };
        table.apply(&[
            put(row("a", TokenRole::Check)),
            put(named("b", "edge")),
            put(named("c", "edge")),
            put(named("d", "other")),
            put(row("token-of-root", TokenRole::Check)),
        ]);
        let configured = ApiToken {
            name: "root".to_owned(),
            token: Secret::new("token-of-root".to_owned()),
            role: ApiRole::Admin,
            customer: None,
        };
        let tokens = ApiTokens::new(&[configured], Some(Arc::clone(&table)), None);
        let name = |token: &str| tokens.caller(&shown(token), NOW).unwrap().name;
        let before = ["a", "b", "c", "d"].map(name);
        assert!(before.iter().all(|name| name.contains(':')), "{before:?}");
        // A holder's second token has the requests of the first: both are one gateway's.
        assert!(before[1] == before[2] && before[0] != before[1] && before[1] != before[3], "{before:?}");
        table.apply(&[put(TokenRow { expires_at: Some(u64::MAX), ..row("a", TokenRole::Admin) })]);
        assert_eq!(name("a"), before[0]);
        assert_eq!(
            (&*name("token-of-root"), tokens.caller(&shown("token-of-root"), 0).unwrap().role),
            ("root", ApiRole::Admin)
        );
        // Of two that are shown, the header that is meant for the API counts first.
        let mut both = shown("b");
        both.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(tokens.caller(&both, NOW).unwrap().name, before[1]);
        both.insert(TOKEN_HEADER, HeaderValue::from_static("nobody's"));
        assert_eq!(tokens.caller(&both, NOW).unwrap().name, before[0]);
    }

    proptest! {
        /// Whatever came before, a token opens what its last row says.
        #[test]
        fn a_token_opens_what_its_last_row_says(
            steps in proptest::collection::vec((0_usize..3, 0_u8..4, proptest::option::of(0_u64..9), 0_u8..3, any::<bool>()), 1..30),
            cuts in proptest::collection::vec(1_usize..5, 1..6),
            now_ms in 0_u64..9,
        ) {
            const TOKENS: [&str; 3] = ["a", "b", "c"];
            let of_step = |(token, role, expires_at, state, deleted): (usize, u8, Option<u64>, u8, bool)| {
                let (role, opened) = match role {
                    0 => (TokenRole::Admin, (ApiRole::Admin, None)),
                    1 => (TokenRole::Ops, (ApiRole::Ops, None)),
                    2 => (TokenRole::Check, (ApiRole::Check, None)),
                    _ => (TokenRole::Consumer(NameId(7)), (ApiRole::Consumer, Some(NameId(7)))),
                };
                let state = [KeyState::Active, KeyState::Suspended, KeyState::Revoked][usize::from(state)];
                let is_open = !deleted && state == KeyState::Active && expires_at.is_none_or(|end_ms| end_ms > now_ms);
                let row = TokenRow { expires_at, state, ..row(TOKENS[token], role) };
                (token, TableChange { deleted, ..put(row) }, is_open.then_some(opened))
            };
            let steps: Vec<_> = steps.into_iter().map(of_step).collect();
            let table = Arc::<TokenTable>::default();
            let tokens = ApiTokens::new(&[], Some(Arc::clone(&table)), None);
            let mut cuts = cuts.into_iter().cycle();
            let mut left = steps.as_slice();
            while !left.is_empty() {
                let (now, later) = left.split_at(cuts.next().unwrap().min(left.len()));
                table.apply(&now.iter().map(|(_, change, _)| change.clone()).collect::<Vec<_>>());
                left = later;
            }
            for (at, token) in TOKENS.into_iter().enumerate() {
                let last = steps.iter().rev().find(|(of, ..)| *of == at).and_then(|(.., opened)| *opened);
                let found = tokens.caller(&shown(token), now_ms).map(|caller| (caller.role, caller.customer));
                prop_assert_eq!(found, last);
            }
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let shown = format!("{:?}", tokens());
        assert!(shown.contains("***") && !shown.contains("token-of"), "{shown}");
    }
}
