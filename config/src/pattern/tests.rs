use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> LinePattern {
    LinePattern::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn fault(text: &str) -> String {
    LinePattern::parse(text).unwrap_err().to_string()
}

#[test]
fn patterns_as_servers_and_their_manuals_have_them() {
    use Dialect::{Apache, ApiGateway, Envoy, Nginx};
    for (dialect, variables, text) in [
        // NGINX: combined, ingress-nginx, variables with braces, a URL in parts.
        (
            Nginx,
            8,
            r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#,
        ),
        (
            Nginx,
            17,
            r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id"#,
        ),
        (Nginx, 3, "${msec}|${status}|${request}"),
        (Nginx, 5, "$msec $scheme://$host$request_uri $status"),
        (Nginx, 4, "$time_iso8601 $request_method $uri$is_args$args $status"),
        // Apache httpd: common, combined as httpd.conf has it, with X-Forwarded-For, times of all kinds.
        (Apache, 7, r#"%h %l %u %t "%r" %>s %b"#),
        (Apache, 9, r#"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\""#),
        (
            Apache,
            16,
            r#"%v:%p %{X-Forwarded-For}i %a %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i" %I %D %{ms}T %{X-Api-Key}i"#,
        ),
        (Apache, 9, r#"%h %u [%{%Y-%m-%dT%H:%M:%S}t.%{msec_frac}t%{%z}t] "%m %U%q %H" %s"#),
        (Apache, 3, "%{usec}t %!200,304{Referer}i 100%% %400,501{User-agent}i"),
        // Envoy: its default, Istio's, formats of time and truncation.
        (
            Envoy,
            15,
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
        ),
        (
            Envoy,
            24,
            r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"#,
        ),
        (Envoy, 3, "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)% %REQ(:PATH):20% 5%% %DYNAMIC_METADATA(a:b):9%"),
        // Amazon API Gateway: its CLF and its CSV.
        (
            ApiGateway,
            10,
            r#"$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime]"$context.httpMethod $context.resourcePath $context.protocol" $context.status $context.responseLength $context.requestId"#,
        ),
        (
            ApiGateway,
            10,
            "$context.identity.sourceIp,$context.identity.caller,$context.identity.user,$context.requestTime,$context.httpMethod,$context.resourcePath,$context.protocol,$context.status,$context.responseLength,$context.extendedRequestId",
        ),
    ] {
        let pattern = parse(text);
        assert_eq!((pattern.dialect(), pattern.variables().count()), (dialect, variables), "{text}");
        assert_eq!(pattern.text(), text);
    }
}

#[test]
fn what_variables_are() {
    let pattern = parse(
        r#"$remote_addr:$remote_port [$time_local] "$request_uri$is_args$args" "$http_x_api_key" $arg_k"#,
    );
    let variables: Vec<&Variable> = pattern.variables().collect();
    assert_eq!(variables[2].field, Some((LineField::Time(LineTime::Clf), 2)));
    assert_eq!((variables[3].name.as_str(), variables.len()), ("request_uriis_argsargs", 6));
    assert_eq!(
        (variables[4].headers.as_slice(), variables[4].form),
        (&["x_api_key".to_owned()][..], LineForm::Free)
    );
    assert_eq!(variables[5].argument.as_deref(), Some("k"));
    assert!(!pattern.has_fractions());

    let pattern = parse("%t %{X-Api-Key}i %D %{User-Agent}i");
    let variables: Vec<&Variable> = pattern.variables().collect();
    assert_eq!(variables[1].headers, ["x_api_key"]);
    assert_eq!(variables[2].field, Some((LineField::Latency(Unit::Micros), 0)));
    assert_eq!(variables[3].field, Some((LineField::UserAgent, 0)));

    let pattern = parse("%START_TIME% %REQ(X-Api-Key?Authorization)%");
    assert_eq!(pattern.variables().nth(1).unwrap().headers, ["x_api_key", "authorization"]);
}

#[test]
fn what_is_refused_says_where() {
    for (text, expected) in [
        ("", "no variable of NGINX"),
        ("GET /", "no variable of NGINX"),
        ("$remote_addr $status", "has no variable for the time"),
        ("%h %r", "has no variable for the time"),
        ("%REQ(:PATH)% %RESPONSE_CODE%", "allowed: one such as %START_TIME%"),
        ("%{%H:%M}t %r", "no date or no time of day"),
        ("%{%Y-%m-%d}t %r", "no date or no time of day"),
        (
            "$msec $status$body_bytes_sent",
            "at character 14: nothing stands between status and body_bytes_sent",
        ),
        ("%t %>s%b", "at character 7: nothing stands between >s and b"),
        ("é %t %>s%b", "at character 9: nothing stands between"),
        ("%t %", "at character 4: `%` without a directive"),
        ("%t %{User-Agent i", "at character 4: `%{` without its `}`"),
        ("%t %y", "at character 4: `%y` is no directive"),
        ("%t %{h}T", "at character 4: allowed: %T"),
        ("%{%Q}t", "at character 1: `%Q` is unknown in the format of a time"),
        ("$msec ${status", "at character 7: `${` without its `}`"),
        ("$msec $", "at character 7: `$` without a name"),
        ("%START_TIME% %REQ(:PATH", "at character 14: `(` without its `)%`"),
        ("%START_TIME% %REQ(:PATH):x%", "at character 14: `:` without a length"),
        ("%START_TIME% %oops%", "at character 14: `%` without a name of capitals"),
        ("$context.requestTime $status", "at character 22: allowed: variables such as $context.requestId"),
        ("%ci:%cp [%tr] %ft %b/%s %TR/%Tw", "looks like HAProxy's log-format"),
    ] {
        let fault = fault(text);
        assert!(fault.contains(expected), "{text}: {fault}");
    }
    assert!(fault(&format!("$msec {}", "x".repeat(MAX_BYTES))).contains("allowed: at most 8192"));
    assert!(fault(&format!("$msec {}", "$a ".repeat(64))).contains("65 variables, allowed: at most 64"));
}

proptest! {
    #[test]
    fn arbitrary_text_is_no_panic(text in "([$%{}()a-zA-Z:_ \"\\\\é]|%t|\\$msec|%START_TIME%|\\$context\\.){0,40}") {
        let _ = LinePattern::parse(&text);
    }
}
