//! Tracing settings and providers.

use super::common::{duration_or, enumeration, grpc_cluster, list, percent, required, resolve, unknown_type, unpack};
use crate::error::{At, Result, refuse};
use crate::format::{Format, MetadataOf};
use crate::header::HeaderKey;
use crate::tracing::{CustomTag, OpenTelemetry, OtlpSampler, OtlpTarget, TagValue, Tracing, TracingProvider, Zipkin};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::trace::v3 as trace;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use meltemi_proto::envoy::extensions::tracers::opentelemetry as otel;
use meltemi_proto::envoy::r#type::metadata::v3 as metadata;
use meltemi_proto::envoy::r#type::tracing::v3 as tag;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default for the `http.url` tag.
const MAX_PATH_TAG: u32 = 256;

pub(crate) fn tracing(value: &hcm::http_connection_manager::Tracing) -> Result<Tracing> {
    let operation = |text: &str, field: &str| match text {
        "" => Ok(None),
        text => Format::parse(text).map(Some).at(field),
    };
    Ok(Tracing {
        client_sampling: percent(value.client_sampling.as_ref(), 100.0).at("client_sampling")?,
        random_sampling: percent(value.random_sampling.as_ref(), 100.0).at("random_sampling")?,
        overall_sampling: percent(value.overall_sampling.as_ref(), 100.0).at("overall_sampling")?,
        verbose: value.verbose,
        max_path_tag_length: value.max_path_tag_length.unwrap_or(MAX_PATH_TAG) as usize,
        custom_tags: list(&value.custom_tags, "custom_tags", custom_tag)?,
        provider: value.provider.as_ref().map(provider).transpose().at("provider")?,
        spawn_upstream_span: value.spawn_upstream_span.unwrap_or(false),
        no_context_propagation: value.no_context_propagation,
        operation: operation(&value.operation, "operation")?,
        upstream_operation: operation(&value.upstream_operation, "upstream_operation")?,
    })
}

pub(crate) fn custom_tag(value: &tag::CustomTag) -> Result<CustomTag> {
    use tag::custom_tag::Type;
    if value.tag.is_empty() {
        return refuse("tag: is required");
    }
    let built = match required(&value.r#type, "type")? {
        Type::Literal(literal) => TagValue::Literal(literal.value.as_str().into()),
        Type::Environment(environment) => TagValue::Environment {
            name: environment.name.as_str().into(),
            default: environment.default_value.as_str().into(),
        },
        Type::RequestHeader(header) => TagValue::RequestHeader {
            key: HeaderKey::parse(&header.name).at("request_header.name")?,
            default: header.default_value.as_str().into(),
        },
        Type::Metadata(from) => metadata_tag(from).at("metadata")?,
        Type::Value(text) => TagValue::Format(Format::parse(text).at("value")?),
    };
    Ok(CustomTag { tag: value.tag.as_str().into(), value: built })
}

fn metadata_tag(value: &tag::custom_tag::Metadata) -> Result<TagValue> {
    use metadata::metadata_kind::Kind;
    let kind = required(&value.kind, "kind")?;
    let of = match required(&kind.kind, "kind")? {
        Kind::Request(_) => MetadataOf::Dynamic,
        Kind::Route(_) => MetadataOf::Route,
        Kind::Cluster(_) => MetadataOf::Cluster,
        Kind::Host(_) => MetadataOf::UpstreamHost,
    };
    let key = required(&value.metadata_key, "metadata_key")?;
    let path = list(&key.path, "metadata_key.path", |segment| match segment.segment.as_ref() {
        Some(metadata::metadata_key::path_segment::Segment::Key(name)) => Ok(Arc::from(name.as_str())),
        Some(metadata::metadata_key::path_segment::Segment::Index(_)) => refuse("index: is not supported"),
        None => refuse("key: is required"),
    })?;
    Ok(TagValue::Metadata {
        of,
        namespace: key.key.as_str().into(),
        path,
        default: value.default_value.as_str().into(),
    })
}

fn provider(value: &trace::tracing::Http) -> Result<TracingProvider> {
    let trace::tracing::http::ConfigType::TypedConfig(any) = required(&value.config_type, "typed_config")?;
    let any = resolve(any).at("typed_config")?;
    if any.is::<trace::ZipkinConfig>() {
        return zipkin(&unpack(&any)?).map(TracingProvider::Zipkin).at("typed_config");
    }
    if any.is::<trace::OpenTelemetryConfig>() {
        return opentelemetry(&unpack(&any)?).map(TracingProvider::OpenTelemetry).at("typed_config");
    }
    unknown_type(&any).at("typed_config")
}

fn zipkin(value: &trace::ZipkinConfig) -> Result<Zipkin> {
    use trace::zipkin_config::{CollectorEndpointVersion as Version, TraceContextOption};
    if value.collector_cluster.is_empty() {
        return refuse("collector_cluster: is required");
    }
    if value.collector_endpoint.is_empty() {
        return refuse("collector_endpoint: is required");
    }
    let proto = match enumeration::<Version>(value.collector_endpoint_version).at("collector_endpoint_version")? {
        Version::HttpJson => false,
        Version::HttpProto => true,
        Version::Grpc | Version::DeprecatedAndUnavailableDoNotUse => {
            return refuse("collector_endpoint_version: only HTTP_JSON and HTTP_PROTO are supported");
        }
    };
    let hostname =
        if value.collector_hostname.is_empty() { &value.collector_cluster } else { &value.collector_hostname };
    Ok(Zipkin {
        cluster: value.collector_cluster.as_str().into(),
        path: value.collector_endpoint.as_str().into(),
        hostname: hostname.as_str().into(),
        proto,
        trace_id_128bit: value.trace_id_128bit,
        w3c: value.trace_context_option == TraceContextOption::UseB3WithW3cPropagation as i32,
    })
}

fn opentelemetry(value: &trace::OpenTelemetryConfig) -> Result<OpenTelemetry> {
    let (target, timeout, headers) = match (&value.grpc_service, &value.http_service) {
        (Some(service), None) => otlp_grpc(service).at("grpc_service")?,
        (None, Some(service)) => otlp_http(service).at("http_service")?,
        _ => return refuse("grpc_service: exactly one of grpc_service and http_service is needed"),
    };
    let mut resource_attributes = Vec::new();
    let mut detect_environment = false;
    for (index, detector) in value.resource_detectors.iter().enumerate() {
        let any = required(&detector.typed_config, "typed_config").and_then(resolve);
        resource_detector(
            &any.at_index("resource_detectors", index)?,
            &mut resource_attributes,
            &mut detect_environment,
        )
        .at_index("resource_detectors", index)?;
    }
    Ok(OpenTelemetry {
        service_name: if value.service_name.is_empty() {
            "unknown_service:envoy".into()
        } else {
            value.service_name.as_str().into()
        },
        target,
        timeout,
        headers,
        resource_attributes,
        detect_environment,
        sampler: value.sampler.as_ref().map_or(Ok(OtlpSampler::None), sampler).at("sampler")?,
    })
}

type Otlp = (OtlpTarget, Duration, Vec<(Arc<str>, Arc<str>)>);

fn otlp_grpc(value: &core::GrpcService) -> Result<Otlp> {
    let (cluster, authority) = grpc_cluster(value)?;
    let headers = value
        .initial_metadata
        .iter()
        .map(|header| (Arc::from(header.key.as_str()), Arc::from(header.value.as_str())))
        .collect();
    let timeout = duration_or(value.timeout.as_ref(), Duration::from_secs(5)).at("timeout")?;
    Ok((OtlpTarget::Grpc { cluster, authority }, timeout, headers))
}

fn otlp_http(value: &core::HttpService) -> Result<Otlp> {
    let uri = required(&value.http_uri, "http_uri")?;
    let core::http_uri::HttpUpstreamType::Cluster(cluster) = required(&uri.http_upstream_type, "http_uri.cluster")?;
    let rest = uri.uri.split_once("://").map_or(uri.uri.as_str(), |(_, rest)| rest);
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let headers = list(&value.request_headers_to_add, "request_headers_to_add", |add| {
        let header = required(&add.header, "header")?;
        Ok((Arc::from(header.key.as_str()), Arc::from(header.value.as_str())))
    })?;
    let timeout = duration_or(uri.timeout.as_ref(), Duration::from_secs(5)).at("http_uri.timeout")?;
    let target = OtlpTarget::Http { cluster: cluster.as_str().into(), authority: authority.into(), path: path.into() };
    Ok((target, timeout, headers))
}

fn resource_detector(any: &Any, attributes: &mut Vec<(Arc<str>, Arc<str>)>, environment: &mut bool) -> Result<()> {
    use otel::resource_detectors::v3::{EnvironmentResourceDetectorConfig, StaticConfigResourceDetectorConfig};
    if any.is::<EnvironmentResourceDetectorConfig>() {
        *environment = true;
        return Ok(());
    }
    if any.is::<StaticConfigResourceDetectorConfig>() {
        let config: StaticConfigResourceDetectorConfig = unpack(any)?;
        attributes
            .extend(config.attributes.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))));
        return Ok(());
    }
    unknown_type(any).at("typed_config")
}

fn sampler(value: &core::TypedExtensionConfig) -> Result<OtlpSampler> {
    let any = resolve(required(&value.typed_config, "typed_config")?)?;
    if any.is::<otel::samplers::v3::AlwaysOnSamplerConfig>() {
        return Ok(OtlpSampler::AlwaysOn);
    }
    unknown_type(&any).at("typed_config")
}
