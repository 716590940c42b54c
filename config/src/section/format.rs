//! The setting `format` of a `[[source]]`, which chooses the decoder of its records.

use super::prelude::*;

choice! {
    /// A gateway's log format.
    pub enum Format {
        /// Any JSON objects whose fields `[source.fields]` locates.
        Json = "json",
        /// Records of Apache APISIX's `kafka-logger` and `http-logger`.
        Apisix = "apisix",
        /// Records of Kong's `http-log` and `kafka-log`.
        Kong = "kong",
        /// Envoy's access log, written as JSON.
        Envoy = "envoy",
        /// NGINX's access log as JSON (`log_format` with `escape=json`).
        Nginx = "nginx",
        /// Amazon API Gateway's access log as JSON.
        AwsApigateway = "aws-apigateway",
        /// OpenTelemetry's semantic conventions for HTTP, as JSON.
        Otel = "otel",
        /// Log events of a subscription of Amazon CloudWatch Logs. Each wraps a record of the source's inner format.
        Cloudwatch = "cloudwatch",
        /// CloudEvents 1.0 as JSON, and over Kafka also in binary mode.
        Cloudevents = "cloudevents",
        /// The combined text line of NGINX and Apache httpd, and by their shape the lines of the last three formats.
        Combined = "combined",
        /// Text lines in the form of the source's pattern.
        Text = "text",
        /// Access logs of AWS' Application Load Balancer, and of its Classic Load Balancer.
        Alb = "alb",
        /// Amazon CloudFront's standard log, and other W3C extended logs.
        Cloudfront = "cloudfront",
        /// HAProxy's log of HTTP requests (`option httplog`).
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
