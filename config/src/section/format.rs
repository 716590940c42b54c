//! `format` of a `[[source]]`: the forms of records that a decoder reads.

use super::prelude::*;

choice! {
    /// A gateway's log format.
    pub enum Format {
        /// Any JSON object; fields named by `[source.fields]`.
        Json = "json",
        /// Apache APISIX `kafka-logger` / `http-logger`.
        Apisix = "apisix",
        /// Kong `http-log` / `kafka-log`.
        Kong = "kong",
        /// Envoy's access log as JSON.
        Envoy = "envoy",
        /// NGINX's access log as JSON (`log_format` with `escape=json`).
        Nginx = "nginx",
        /// Amazon API Gateway's access log as JSON.
        AwsApigateway = "aws-apigateway",
        /// OpenTelemetry's semantic conventions for HTTP, as JSON.
        Otel = "otel",
        /// Log events of a subscription of Amazon CloudWatch Logs, each a record of the source's inner format.
        Cloudwatch = "cloudwatch",
        /// CloudEvents 1.0 as JSON; over Kafka also in binary mode.
        Cloudevents = "cloudevents",
        /// The combined text line of NGINX and Apache httpd; also what the last three read, told by its shape.
        Combined = "combined",
        /// Text lines of the source's pattern.
        Text = "text",
        /// Access logs of AWS' Application Load Balancer, and of its Classic Load Balancer.
        Alb = "alb",
        /// Amazon CloudFront's standard log, and other W3C extended logs.
        Cloudfront = "cloudfront",
        /// HAProxy's HTTP log (`option httplog`).
        Haproxy = "haproxy",
    }
}

impl Format {
    /// Returns whether a record is a line of text.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Combined | Self::Text | Self::Alb | Self::Cloudfront | Self::Haproxy)
    }
}
