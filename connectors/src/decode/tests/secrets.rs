//! What is a secret beside the key itself, and which request ids are no identity: what callers can make up.

use super::*;

const FIRST: &str = "first-raw-key";
const SECOND: &str = "second-raw-key";

fn rules(format: Format, from: Vec<KeyFrom>) -> Source {
    let mut source = source(format);
    source.keys.from = from;
    source
}

fn header(name: &str) -> KeyFrom {
    KeyFrom::Header(name.into())
}

fn query(name: &str) -> KeyFrom {
    KeyFrom::Query(name.into())
}

#[test]
fn what_stands_where_keys_are_looked_for_is_a_secret_though_another_is_the_key() {
    let path = format!("/v1/{FIRST}/{SECOND}/x");
    // A member that stands twice: neither is the key, and both are secrets.
    let twice = run(&json(), with(&format!(r#""key":"{SECOND}","key":"{FIRST}","path":"{path}""#)));
    assert_eq!((twice.events.len(), twice.events[0].key), (1, KeyId::CONFLICTING));
    assert_eq!(route(&twice).3, "/v1/{key}/{key}/x");
    for (source, message) in [
        (
            rules(Format::Kong, vec![KeyFrom::Consumer]),
            format!(
                r#"{{"started_at":1763642655123,"consumer":{{"username":"{FIRST}","id":"{SECOND}"}},"request":{{"uri":"{path}"}}}}"#
            ),
        ),
        // Two places of one field.
        (
            rules(Format::AwsApigateway, vec![KeyFrom::Key]),
            format!(
                r#"{{"requestTimeEpoch":"1763642655123","identity.apiKey":"{SECOND}","apiKey":"{FIRST}","path":"{path}"}}"#
            ),
        ),
        // A rule that isn't reached any more: the query's.
        (
            rules(Format::Envoy, vec![header("x-api-key"), query("apikey")]),
            format!(
                r#"{{"start_time":"2025-11-20T12:44:15.123Z","x_api_key":"{FIRST}","path":"{path}?a=b&apikey={SECOND}"}}"#
            ),
        ),
        (
            rules(Format::Combined, vec![KeyFrom::User, query("apikey")]),
            LINE.replace("ada", FIRST).replace("/v2/orders/7?x=1", &format!("{path}?%61pikey={SECOND}")),
        ),
        (
            rules(Format::Nginx, vec![header("x-api-key"), query("apikey")]),
            format!(
                r#"{{"msec":"1763642655.123","http_x_api_key":"{FIRST}","uri":"{path}","args":"apikey={SECOND}"}}"#
            ),
        ),
        // An argument that stands twice.
        (
            rules(Format::Envoy, vec![query("apikey")]),
            format!(
                r#"{{"start_time":"2025-11-20T12:44:15.123Z","path":"{path}?apikey={FIRST}&apikey=second%2Draw-key"}}"#
            ),
        ),
    ] {
        let out = run(&source, &message);
        assert_eq!((out.events.len(), out.events[0].key), (1, sha256_id(FIRST)), "{message}");
        assert_eq!(route(&out).3, "/v1/{key}/{key}/x", "{message}");
    }
}

#[test]
fn however_many_secrets_a_record_has_its_call_counts() {
    let array = |elements: usize| with(&format!(r#""key":[{}]"#, vec!["\"k\""; elements].join(",")));
    let arguments = |count: usize| {
        let arguments = vec!["apikey=k"; count].join("&");
        with(&format!(r#""key":"k","path":"/x?{arguments}""#))
    };
    type Make<'a> = &'a dyn Fn(usize) -> String;
    for make in [&array as Make<'_>, &arguments] {
        for count in [1, 63, 64, 65, 100_000] {
            assert_eq!(event(&json(), make(count)).key, sha256_id("k"), "{count}");
        }
    }
}

/// A log of one gateway: a request id of the caller's choice and the call's time go into it.
type Log = fn(&str, u64) -> String;

#[test]
fn a_caller_who_repeats_a_request_id_is_counted_each_time() {
    let envoy: Log = |id, ms| {
        format!(
            r#"{{"start_time":"2025-11-20T12:44:15.{ms:03}Z","request_id":"{id}","method":"GET","path":"/"}}"#
        )
    };
    let gateway: Log = |id, ms| {
        format!(r#"{{"start_time":"2025-11-20T12:44:15.{ms:03}Z","x-request-id":"{id}","method":"GET"}}"#)
    };
    let aws: Log = |id, ms| {
        format!(r#"{{"requestId":"{id}","requestTimeEpoch":"1763642655{ms:03}","httpMethod":"GET"}}"#)
    };
    let apisix: Log = |id, ms| {
        format!(
            r#"{{"start_time":1763642655{ms:03},"request":{{"method":"GET","headers":{{"x-request-id":"{id}"}}}}}}"#
        )
    };
    let kong: Log = |id, ms| {
        format!(
            r#"{{"started_at":1763642655{ms:03},"request":{{"method":"GET","headers":{{"x-request-id":"{id}","kong-request-id":"{id}"}}}}}}"#
        )
    };
    let nginx: Log = |id, ms| {
        format!(r#"{{"msec":"1763642655.{ms:03}","http_x_request_id":"{id}","request_method":"GET"}}"#)
    };
    let apisix_plugin: Log = |id, ms| {
        format!(r#"{{"start_time":1763642655{ms:03},"request_id":"{id}","request":{{"method":"GET"}}}}"#)
    };
    let nginx_variable: Log =
        |id, ms| format!(r#"{{"msec":"1763642655.{ms:03}","request_id":"{id}","request_method":"GET"}}"#);
    let ingress: Log =
        |id, ms| format!(r#"{{"msec":"1763642655.{ms:03}","req_id":"{id}","request_method":"GET"}}"#);
    for (format, log, is_resent_known) in [
        (Format::Apisix, apisix_plugin, true),
        (Format::Nginx, nginx_variable, true),
        (Format::Nginx, ingress, true),
        (Format::Envoy, envoy, true),
        (Format::Envoy, gateway, true),
        (Format::AwsApigateway, aws, true),
        (Format::Apisix, apisix, false),
        (Format::Kong, kong, false),
        (Format::Nginx, nginx, false),
    ] {
        let id = |id: &str, ms: u64| event(&source(format), log(id, ms)).request;
        let (first, second, other) = (id("same", 1), id("same", 2), id("other", 1));
        assert!(first == RequestId::NONE || (first != second && first != other), "{format:?}");
        // A record that the gateway sends again is the same one.
        assert_eq!(
            (first == id("same", 1) && first.is_some(), second.is_some()),
            (is_resent_known, is_resent_known)
        );
    }
    // Whoever maps the field vouches for it; and the extended id of a REST API is the gateway's own.
    let mut envoy_mapped = source(Format::Envoy);
    envoy_mapped.fields.request_id = at("/request_id");
    assert_eq!(event(&envoy_mapped, envoy("same", 1)).request, RequestId::new("gateway", b"same"));
}
