//! Tokens of those who ask, and the requests that each opens.
//!
//! A token is kept as its SHA-256, and is compared with all bytes of all tokens. So the time of an answer says nothing
//! about them. A client shows it as `Authorization: Bearer TOKEN`, or in the header `X-Keytide-Token`. A gateway needs the
//! latter where `Authorization` is its client's.
//!
//! | role | checks | rows | of |
//! |---|---|---|---|
//! | admin | yes | yes | all |
//! | ops | no | yes | all |
//! | check | yes | no | |
//! | consumer | no | yes | one customer; the rest doesn't exist for it |

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use keytide_config::{ApiRole, ApiToken, Secret};
use keytide_dataflow::model::NameId;
use sha2::{Digest, Sha256};

/// The header of a token beside `Authorization`.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-keytide-token");

/// The SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    /// The name of the token, empty where everything is open.
    pub(super) name: Arc<str>,
    pub(super) role: ApiRole,
    /// The customer of a consumer.
    pub(super) customer: Option<NameId>,
}

impl ApiCaller {
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

/// The tokens of the configuration.
#[derive(Debug)]
pub(super) struct ApiTokens(Vec<(TokenHash, ApiCaller)>);

impl ApiTokens {
    pub(super) fn new(tokens: &[ApiToken]) -> Self {
        let of = |ApiToken { name, token, role, customer }: &ApiToken| {
            let customer = customer.as_deref().map(NameId::new);
            (TokenHash::new(token), ApiCaller { name: name.as_str().into(), role: *role, customer })
        };
        Self(tokens.iter().map(of).collect())
    }

    /// Returns the caller of a request; `None` if there are tokens, and it shows none of them.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<ApiCaller> {
        if self.0.is_empty() {
            return Some(ApiCaller { name: "".into(), role: ApiRole::Admin, customer: None });
        }
        let shown = [headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes), bearer(headers)];
        let shown = shown.map(|token| token.map(TokenHash::of));
        // All are compared, so the time says nothing about which it is.
        let found = self.0.iter().fold(None, |found, (token, caller)| {
            let is_it = shown.iter().flatten().fold(false, |is_it, shown| is_it | token.equals(shown));
            if is_it { Some(caller) } else { found }
        });
        found.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> ApiTokens {
        let of = |name: &str, role, customer: Option<&str>| ApiToken {
            name: name.to_owned(),
            token: Secret::new(format!("token-of-{name}")),
            role,
            customer: customer.map(str::to_owned),
        };
        ApiTokens::new(&[
            of("root", ApiRole::Admin, None),
            of("edge", ApiRole::Check, None),
            of("ops", ApiRole::Ops, None),
            of("acme", ApiRole::Consumer, Some("cus_1")),
        ])
    }

    fn caller(pairs: &[(&'static str, &'static str)]) -> Option<ApiCaller> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        tokens().caller(&pairs.collect())
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
        assert!(ApiTokens::new(&[]).caller(&HeaderMap::new()).unwrap().may_check());
    }

    #[test]
    fn a_token_is_never_printed() {
        let shown = format!("{:?}", tokens());
        assert!(shown.contains("***") && !shown.contains("token-of"), "{shown}");
    }
}
