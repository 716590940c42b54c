//! The messages in `tests/data/samples/`, and what becomes of each.

use std::path::PathBuf;

use super::{read, repository};

/// The views that are compared.
pub(crate) const METERS: [&str; 5] = ["usage", "usage_by_route", "latency", "geo", "callers"];

/// A sample and what becomes of it.
pub(crate) struct Sample {
    /// The file in `tests/data/samples/`.
    pub(crate) name: &'static str,
    pub(crate) format: &'static str,
    /// `[keys]`.
    pub(crate) keys: &'static str,
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
}

pub(crate) const HEADER: &str = r#"from = ["header:apikey"]"#;
const X_HEADER: &str = r#"from = ["header:x-api-key"]"#;
const QUERY: &str = r#"from = ["query:apikey"]"#;
pub(crate) const CLIENT_IP: &str = "from = [\"client_ip\"]\nhash = \"none\"";
const CONSUMER: &str = "from = [\"consumer\"]\nhash = \"none\"";
const CREDENTIAL: &str = "from = [\"credential\"]\nhash = \"none\"";

pub(crate) const SAMPLES: &[Sample] = &[
    case("apisix_kafka_logger_default.json", "apisix", HEADER, 1, 0),
    case("apisix_kafka_logger_batch.json", "apisix", HEADER, 2, 0),
    case("kong_http_log.json", "kong", HEADER, 1, 0),
    case("kong_http_log_batch.json", "kong", CREDENTIAL, 2, 0),
    case("istio_envoy_default.json", "envoy", QUERY, 1, 0),
    case("envoy_gateway_default.json", "envoy", CLIENT_IP, 1, 0),
    case("nginx_json_log.json", "nginx", X_HEADER, 1, 0),
    case("aws_apigw_rest_access_log.json", "aws-apigateway", CREDENTIAL, 1, 0),
    case("cloudwatch_logs_envelope.json", "cloudwatch", CREDENTIAL, 3, 0),
    case("cloudwatch_logs_control_message.json", "cloudwatch", CREDENTIAL, 0, 0),
    case("firehose_concatenated.json", "cloudwatch", CREDENTIAL, 3, 3),
    case("firehose_multimember.gz", "cloudwatch", CREDENTIAL, 3, 3),
    case("cloudevents_structured.json", "cloudevents", CONSUMER, 1, 0),
    case("cloudevents_batch.json", "cloudevents", CONSUMER, 2, 1),
];

const fn case(
    name: &'static str,
    format: &'static str,
    keys: &'static str,
    events: u64,
    duplicates: u64,
) -> Sample {
    Sample { name, format, keys, events, duplicates }
}

impl Sample {
    /// The message.
    pub(crate) fn message(&self) -> Vec<u8> {
        read(&data("samples").join(self.name))
    }

    /// Where what the views say of it stands.
    pub(crate) fn golden(&self) -> PathBuf {
        data("golden").join(format!("{}.txt", self.name.split('.').next().unwrap()))
    }
}

/// A folder of `tests/data/`.
pub(crate) fn data(folder: &str) -> PathBuf {
    repository().join("tests/data").join(folder)
}
