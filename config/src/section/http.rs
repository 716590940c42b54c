//! `[http]`: the address that serves metrics and health.

use std::net::{Ipv4Addr, SocketAddr};

use super::prelude::*;

section! {
    /// `[http]`: metrics and health.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Http, RawHttp then reach {
        /// The address that is listened at.
        other listen: SocketAddr = listen(SocketAddr) or SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
        /// The token that a client must show as `Authorization: Bearer`; always there unless `listen` is loopback.
        other token: Option<Secret> = token(SecretRef) or None;
    }
}

impl RawHttp {
    fn reach(spot: &Spot<Self>, http: &mut Http, check: &mut Check<'_>) {
        let Self { listen, token } = &spot.value;
        if !http.listen.ip().is_loopback() && token.is_absent() {
            let place = listen.given().map_or(&spot.place, |listen| &listen.place);
            let message = format!(
                "found {}, which others can reach, without a `token`, allowed: a loopback address, or token = {}",
                http.listen,
                SecretRef::allowed()
            );
            check.refuse(place, message);
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
