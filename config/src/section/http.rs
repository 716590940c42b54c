//! The section `[http]` of the server for metrics, health and the busiest keys.

use std::net::{Ipv4Addr, SocketAddr};

use super::prelude::*;

section! {
    /// The section `[http]`, which serves metrics, health and the busiest keys.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Http, RawHttp then reach {
        /// The address at which the job listens.
        other listen: SocketAddr = listen(SocketAddr) or SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
        /// The token of the header `Authorization: Bearer`. It is required unless `listen` is loopback.
        other token: Option<Secret> = token(SecretRef) or None;
    }
}

impl RawHttp {
    fn reach(spot: &Spot<Self>, http: &mut Http, check: &mut Check<'_>) {
        let Self { listen, token } = &spot.value;
        if !http.listen.ip().is_loopback() && token.is_absent() {
            let location = listen.given().map_or(&spot.location, |listen| &listen.location);
            let message = format!(
                "found {}, which others can reach, without a `token`, allowed: a loopback address, or token = {}",
                http.listen,
                SecretRef::allowed()
            );
            check.refuse(location, message);
        }
        // A client can't show a token that a header can't hold.
        if let Some((spot, secret)) = token.given().zip(http.token.as_ref())
            && !secret.reveal().bytes().all(|b| b.is_ascii_graphic())
        {
            let message = "what it refers to is no token, allowed: visible ASCII characters without blanks";
            check.refuse(spot, message);
        }
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
        assert_eq!(
            parse_with(&text, &[("TOKEN", "no token of sixteen bytes")]).unwrap_err().to_string(),
            "line 8: http.token: what it refers to is no token, allowed: visible ASCII characters without blanks"
        );
    }
}
