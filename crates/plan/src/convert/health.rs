//! Active health checks.

use super::common::{duration, duration_or, enumeration, list, port, positive, required};
use super::header::header_rules;
use crate::cluster::{HealthCheck, HealthCheckKind, HttpHealthCheck};
use crate::error::{At, PlanError, Result, refuse};
use bytes::Bytes;
use core::health_check::{HealthChecker, Payload, payload};
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::r#type::v3 as kind;
use std::time::Duration;

pub(crate) fn health_check(value: &core::HealthCheck) -> Result<HealthCheck> {
    let threshold = |value: Option<u32>, field: &str| value.ok_or_else(|| PlanError::new("is required").under(field));
    let interval = duration(required(&value.interval, "interval")?).and_then(positive).at("interval")?;
    let jitter = |value, field| duration_or(value, Duration::ZERO).at(field);
    let unhealthy_interval = duration_or(value.unhealthy_interval.as_ref(), interval).at("unhealthy_interval")?;
    let no_traffic =
        duration_or(value.no_traffic_interval.as_ref(), Duration::from_secs(60)).at("no_traffic_interval")?;
    Ok(HealthCheck {
        timeout: duration(required(&value.timeout, "timeout")?).and_then(positive).at("timeout")?,
        interval,
        initial_jitter: jitter(value.initial_jitter.as_ref(), "initial_jitter")?,
        interval_jitter: jitter(value.interval_jitter.as_ref(), "interval_jitter")?,
        interval_jitter_percent: value.interval_jitter_percent,
        unhealthy_threshold: threshold(value.unhealthy_threshold, "unhealthy_threshold")?,
        healthy_threshold: threshold(value.healthy_threshold, "healthy_threshold")?,
        alt_port: value.alt_port.map(port).transpose().at("alt_port")?,
        no_traffic_interval: no_traffic,
        no_traffic_healthy_interval: duration_or(value.no_traffic_healthy_interval.as_ref(), no_traffic)
            .at("no_traffic_healthy_interval")?,
        unhealthy_interval,
        unhealthy_edge_interval: duration_or(value.unhealthy_edge_interval.as_ref(), unhealthy_interval)
            .at("unhealthy_edge_interval")?,
        healthy_edge_interval: duration_or(value.healthy_edge_interval.as_ref(), interval)
            .at("healthy_edge_interval")?,
        kind: match required(&value.health_checker, "health_checker")? {
            HealthChecker::HttpHealthCheck(http) => HealthCheckKind::Http(http_check(http).at("http_health_check")?),
            HealthChecker::TcpHealthCheck(tcp) => HealthCheckKind::Tcp {
                send: tcp.send.as_ref().map_or(Ok(Bytes::new()), bytes_of).at("tcp_health_check.send")?,
                receive: list(&tcp.receive, "receive", bytes_of).at("tcp_health_check")?,
            },
            HealthChecker::GrpcHealthCheck(grpc) => HealthCheckKind::Grpc {
                service: grpc.service_name.as_str().into(),
                authority: grpc.authority.as_str().into(),
            },
            HealthChecker::CustomHealthCheck(_) => return refuse("custom_health_check: is not supported"),
        },
    })
}

fn bytes_of(value: &Payload) -> Result<Bytes> {
    match required(&value.payload, "payload")? {
        payload::Payload::Binary(bytes) => Ok(bytes.clone()),
        payload::Payload::Text(text) => hex(text).at("text"),
    }
}

/// Envoy's `text` payloads are hexadecimal.
fn hex(text: &str) -> Result<Bytes> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    match digits {
        Some(digits) if !digits.is_empty() && digits.len().is_multiple_of(2) => {
            Ok(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
        }
        _ => refuse("is not hexadecimal"),
    }
}

fn statuses(values: &[kind::Int64Range], field: &str) -> Result<Vec<(u16, u16)>> {
    list(values, field, |range| match (u16::try_from(range.start), u16::try_from(range.end)) {
        (Ok(start), Ok(end)) if start >= 100 && start < end && end <= 600 => Ok((start, end)),
        _ => refuse("is not a range of statuses between 100 and 600"),
    })
}

fn http_check(value: &core::health_check::HttpHealthCheck) -> Result<HttpHealthCheck> {
    if value.path.is_empty() {
        return refuse("path: is required");
    }
    let expected = statuses(&value.expected_statuses, "expected_statuses")?;
    let method = match enumeration::<core::RequestMethod>(value.method).at("method")? {
        core::RequestMethod::MethodUnspecified | core::RequestMethod::Get => http::Method::GET,
        core::RequestMethod::Connect => return refuse("method: CONNECT cannot check health"),
        other => http::Method::from_bytes(other.as_str_name().as_bytes())
            .map_err(|_| PlanError::new("is not a method").under("method"))?,
    };
    Ok(HttpHealthCheck {
        host: value.host.as_str().into(),
        path: value.path.as_str().into(),
        method,
        headers: header_rules(&value.request_headers_to_add, &value.request_headers_to_remove, "request_headers")?,
        http2: match enumeration::<kind::CodecClientType>(value.codec_client_type).at("codec_client_type")? {
            kind::CodecClientType::Http1 => false,
            kind::CodecClientType::Http2 => true,
            kind::CodecClientType::Http3 => return refuse("codec_client_type: HTTP3 is not supported"),
        },
        expected: if expected.is_empty() { vec![(200, 201)] } else { expected },
        retriable: statuses(&value.retriable_statuses, "retriable_statuses")?,
        receive: list(&value.receive, "receive", bytes_of)?,
    })
}
