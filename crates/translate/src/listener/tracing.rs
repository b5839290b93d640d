//! Tracing of the HTTP connection manager.

use std::time::Duration;

use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use meltemi_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption, HttpService, HttpUri, http_uri};
use meltemi_proto::envoy::config::trace::v3::{
    OpenTelemetryConfig, ZipkinConfig, tracing as trace, zipkin_config::CollectorEndpointVersion,
    zipkin_config::TraceContextOption,
};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use meltemi_proto::envoy::r#type::metadata::v3::{
    MetadataKey, MetadataKind, metadata_key::PathSegment, metadata_key::path_segment::Segment, metadata_kind,
};
use meltemi_proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use meltemi_proto::envoy::r#type::v3::Percent;

use super::access_log::grpc_service;
use crate::profile::{OpenTelemetry, TraceTag, Tracing, TracingProvider, Zipkin};
use crate::wire::duration;

pub fn build(tracing: &Tracing) -> hcm::Tracing {
    let all = || Some(Percent { value: 100.0 });
    hcm::Tracing {
        client_sampling: all(),
        random_sampling: Some(Percent { value: f64::from(tracing.sampling_ppm) / 10_000.0 }),
        overall_sampling: all(),
        max_path_tag_length: tracing.max_path_tag_length,
        custom_tags: tracing.tags.iter().map(|(name, tag)| custom_tag(name, tag)).collect(),
        provider: tracing.provider.as_ref().map(provider),
        spawn_upstream_span: tracing.spawn_upstream_span.then_some(true),
        ..hcm::Tracing::default()
    }
}

fn custom_tag(name: &str, tag: &TraceTag) -> CustomTag {
    let kind = match tag {
        TraceTag::Literal(value) => custom_tag::Type::Literal(custom_tag::Literal { value: value.to_string() }),
        TraceTag::Environment { name, default } => custom_tag::Type::Environment(custom_tag::Environment {
            name: name.to_string(),
            default_value: default.to_string(),
        }),
        TraceTag::Header { name, default } => custom_tag::Type::RequestHeader(custom_tag::Header {
            name: name.to_string(),
            default_value: default.to_string(),
        }),
        TraceTag::Rbac(key) => custom_tag::Type::Metadata(rbac_metadata(key)),
    };
    CustomTag { tag: name.into(), r#type: Some(kind) }
}

fn rbac_metadata(key: &str) -> custom_tag::Metadata {
    custom_tag::Metadata {
        kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})) }),
        metadata_key: Some(MetadataKey {
            key: "envoy.filters.http.rbac".into(),
            path: vec![PathSegment { segment: Some(Segment::Key(key.into())) }],
        }),
        default_value: String::new(),
    }
}

fn provider(provider: &TracingProvider) -> trace::Http {
    let (name, config) = match provider {
        TracingProvider::Zipkin(zipkin) => ("envoy.tracers.zipkin", Any::pack(&zipkin_config(zipkin))),
        TracingProvider::OpenTelemetryGrpc(otel) => ("envoy.tracers.opentelemetry", Any::pack(&otel_grpc(otel))),
        TracingProvider::OpenTelemetryHttp(otel) => ("envoy.tracers.opentelemetry", Any::pack(&otel_http(otel))),
    };
    trace::Http { name: name.into(), config_type: Some(trace::http::ConfigType::TypedConfig(config)) }
}

fn zipkin_config(zipkin: &Zipkin) -> ZipkinConfig {
    ZipkinConfig {
        collector_cluster: zipkin.cluster.to_string(),
        collector_endpoint: zipkin.path.to_string(),
        collector_hostname: zipkin.hostname.to_string(),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson as i32,
        trace_id_128bit: !zipkin.short_trace_ids,
        shared_span_context: Some(false),
        trace_context_option: match zipkin.with_w3c {
            true => TraceContextOption::UseB3WithW3cPropagation,
            false => TraceContextOption::UseB3,
        } as i32,
        ..ZipkinConfig::default()
    }
}

fn otel_grpc(otel: &OpenTelemetry) -> OpenTelemetryConfig {
    let mut service = grpc_service(&otel.cluster, &otel.target);
    service.timeout = otel.timeout.map(duration);
    service.initial_metadata = otel
        .headers
        .iter()
        .map(|(name, value)| HeaderValue { key: name.to_string(), value: value.to_string(), ..HeaderValue::default() })
        .collect();
    OpenTelemetryConfig {
        grpc_service: Some(service),
        service_name: otel.service_name.to_string(),
        ..OpenTelemetryConfig::default()
    }
}

fn otel_http(otel: &OpenTelemetry) -> OpenTelemetryConfig {
    let http_uri = HttpUri {
        uri: otel.target.to_string(),
        // Envoy refuses a URI without one.
        timeout: Some(duration(otel.timeout.unwrap_or(Duration::from_secs(5)))),
        http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(otel.cluster.to_string())),
    };
    let header = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| HeaderValueOption {
        header: Some(HeaderValue { key: name.to_string(), value: value.to_string(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    };
    let service = HttpService {
        http_uri: Some(http_uri),
        request_headers_to_add: otel.headers.iter().map(header).collect(),
        ..HttpService::default()
    };
    OpenTelemetryConfig {
        http_service: Some(service),
        service_name: otel.service_name.to_string(),
        ..OpenTelemetryConfig::default()
    }
}
