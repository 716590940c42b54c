//! Signatures of requests to AWS, Signature Version 4.
//!
//! ```text
//! request ──► its canonical form ──► what is signed: time, scope, hash of the form ──► HMAC by a key for the scope
//! ```
//! The key is made of the secret by the day, the region and the service, so it opens nothing else. The known answers in
//! the tests are those of AWS' own suite. All services but S3 encode the path once more, which is done here.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use keytide_dataflow::model::hex;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::keys::AwsKeys;
use crate::gateways::admin::AdminRequest;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The part of AWS that a signature is for.
pub(super) struct AwsScope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// Returns the headers that sign a request, beside `Host`, which is signed too.
pub(super) fn sign(
    request: &AdminRequest<'_>,
    keys: &AwsKeys,
    scope: &AwsScope<'_>,
) -> Vec<(&'static str, String)> {
    let millis = i64::try_from(request.now_ms).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    let (time, day) = (time.strftime("%Y%m%dT%H%M%SZ").to_string(), time.strftime("%Y%m%d").to_string());
    // The names of headers are in the order of the alphabet.
    let mut headers = vec![("host", request.host), ("x-amz-date", &time)];
    headers.extend(keys.session.iter().map(|session| ("x-amz-security-token", session.reveal())));
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let form = canonical(request, &headers, &names);
    let AwsScope { region, service } = scope;
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let signed = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hash(form.as_bytes()));
    let secret = Zeroizing::new(format!("AWS4{}", keys.secret.reveal()));
    let mut key = Zeroizing::new(mac(secret.as_bytes(), &day));
    for part in [region, service, "aws4_request"] {
        key = Zeroizing::new(mac(&*key, part));
    }
    let signature = hex(&mac(&*key, &signed));
    let id = keys.id.reveal();
    let authorization =
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
    let session = keys.session.iter().map(|session| ("X-Amz-Security-Token", session.reveal().to_owned()));
    [("Authorization", authorization), ("X-Amz-Date", time.clone())].into_iter().chain(session).collect()
}

/// Returns the canonical form of a request.
fn canonical(request: &AdminRequest<'_>, headers: &[(&str, &str)], names: &str) -> Zeroizing<String> {
    let mut form = Zeroizing::new(format!("{}\n", request.method));
    for byte in request.path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                form.push(byte.into())
            }
            // Writing to a text never fails.
            _ => _ = write!(form, "%{byte:02X}"),
        }
    }
    let mut query: Vec<&str> = request.query.split('&').collect();
    query.sort_unstable();
    _ = write!(form, "\n{}\n", query.join("&"));
    for (name, value) in headers {
        _ = writeln!(form, "{name}:{value}");
    }
    _ = write!(form, "\n{names}\n{}", hash(request.body));
    form
}

fn hash(bytes: &[u8]) -> String {
    hex(&<[u8; 32]>::from(Sha256::digest(bytes)))
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use hyper::Method;
    use keytide_config::Secret;

    use super::*;

    /// The session token of AWS' suite.
    const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    #[test]
    fn requests_are_signed_as_in_the_suite_of_aws() {
        for (name, method, path, query, session, signature) in [
            (
                "get-vanilla",
                Method::GET,
                "/",
                "",
                None,
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                Method::GET,
                "/",
                "Param2=value2&Param1=value1",
                None,
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "get-utf8",
                Method::GET,
                "/\u{1234}",
                "",
                None,
                "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
            ),
            (
                "normalize-path/get-space",
                Method::GET,
                "/example space/",
                "",
                None,
                "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
            ),
            (
                "post-vanilla",
                Method::POST,
                "/",
                "",
                None,
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-sts-token/post-sts-header-before",
                Method::POST,
                "/",
                "",
                Some(SESSION),
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let keys = AwsKeys {
                id: Secret::new("AKIDEXAMPLE"),
                secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
                session: session.map(Secret::new),
            };
            let request = AdminRequest {
                method: &method,
                host: "example.amazonaws.com",
                path,
                query,
                body: b"",
                now_ms: 1_440_938_160_000,
            };
            let headers = sign(&request, &keys, &AwsScope { region: "us-east-1", service: "service" });
            let token = if session.is_some() { ";x-amz-security-token" } else { "" };
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=host;x-amz-date{token}, Signature={signature}"
            );
            assert_eq!(headers[0], ("Authorization", authorization), "{name}");
            assert_eq!(headers[1], ("X-Amz-Date", "20150830T123600Z".to_owned()));
            let shown = session.map(|session| ("X-Amz-Security-Token", session.to_owned()));
            assert_eq!(headers.get(2), shown.as_ref());
        }
    }

    #[test]
    fn a_time_that_no_calendar_has_is_signed_all_the_same() {
        let keys = AwsKeys { id: Secret::new("A"), secret: Secret::new(""), session: None };
        let method = Method::GET;
        let request =
            AdminRequest { method: &method, host: "", path: "", query: "", body: b"", now_ms: u64::MAX };
        assert_eq!(sign(&request, &keys, &AwsScope { region: "", service: "" }).len(), 2);
    }
}
