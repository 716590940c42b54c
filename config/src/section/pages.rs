//! The section `[pages]` of the pages that `[api]` serves to people.
//!
//! Limits: 20 sites that embed pages.

use super::prelude::*;

/// The most sites that may show pages in frames.
const MAX_SITES: usize = 20;
/// The fewest bytes of a secret that signs links.
const MIN_SECRET_BYTES: usize = 16;

section! {
    /// The section `[pages]`: the listener of `[api]` also serves pages for customers and operators.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Pages, RawPages then sign {
        /// The sites that may show pages in frames, such as a customers' portal.
        other embed_in: Vec<String> = embed_in(List<Site>, AtMost(MAX_SITES, "sites")) or Vec::new();
        /// Signs links of customers. Without it they end with the process.
        other link_secret: Option<Secret> = link_secret(SecretRef) or None;
    }
}

texts! {
    /// A site by its scheme, host and port, as policies of browsers name it.
    Site if is_site, "https:// and a host, without a path, such as https://portal.example.com";
}

/// Returns whether a text is an origin of https, or of http on this machine.
fn is_site(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (authority, true),
    };
    port && is_host(host) && (scheme == "https" || scheme == "http" && is_loopback(host))
}

impl RawPages {
    fn sign(spot: &Spot<Self>, pages: &mut Pages, check: &mut Check<'_>) {
        let secret = spot.value.link_secret.given().zip(pages.link_secret.as_ref());
        if let Some((spot, secret)) = secret
            && secret.reveal().len() < MIN_SECRET_BYTES
        {
            let message = format!(
                "has {} bytes, allowed: at least {MIN_SECRET_BYTES} random ones",
                secret.reveal().len()
            );
            check.refuse(spot, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_origins() {
        for site in ["https://portal.example.com", "https://portal.example.com:8443", "http://localhost:3000"]
        {
            assert!(is_site(site), "{site}");
        }
        for other in [
            "portal.example.com",
            "http://portal.example.com",
            "https://",
            "https://a.example/",
            "https://a.example:0",
            "https://a.example:x",
            "https://*",
            "'self'",
            "https://a.example; script-src *",
            "https://a.example https://b.example",
        ] {
            assert!(!is_site(other), "{other}");
        }
    }
}
