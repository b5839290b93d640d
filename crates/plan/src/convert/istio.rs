//! Istio's own filters, in the protobuf packages they have in Envoy's tree.

use super::common::{duration_or, enumeration, list, names, optional_duration, required};
use crate::error::{At, Result, refuse};
use crate::filter::{IstioAlpn, IstioMetricConfig, IstioStats, PeerMetadata, PeerMethod};
use crate::listener::MetadataExchange;
use meltemi_proto::envoy::tcp::metadataexchange::config as mx;
use meltemi_proto::io::istio::http::peer_metadata as peer;
use meltemi_proto::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn_proto;
use meltemi_proto::stats as stats_proto;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn stats(value: &stats_proto::PluginConfig) -> Result<IstioStats> {
    optional_duration(value.rotation_interval.as_ref()).at("rotation_interval")?;
    Ok(IstioStats {
        stat_prefix: if value.stat_prefix.is_empty() { "istio".into() } else { value.stat_prefix.as_str().into() },
        disable_host_header_fallback: value.disable_host_header_fallback,
        tcp_reporting_duration: duration_or(value.tcp_reporting_duration.as_ref(), Duration::from_secs(5))
            .at("tcp_reporting_duration")?,
        server_gateway: value.reporter == stats_proto::Reporter::ServerGateway as i32,
        metrics: list(&value.metrics, "metrics", metric)?,
    })
}

fn metric(value: &stats_proto::MetricConfig) -> Result<IstioMetricConfig> {
    let dimensions = value
        .dimensions
        .iter()
        .map(|(label, expression)| {
            Ok((Arc::from(label.as_str()), literal(expression).at(&format!("dimensions[{label:?}]"))?))
        })
        .collect::<Result<_>>()?;
    Ok(IstioMetricConfig {
        name: value.name.as_str().into(),
        drop: value.drop,
        tags_to_remove: names(&value.tags_to_remove),
        dimensions,
    })
}

/// A CEL string literal; other expressions are not evaluated here.
fn literal(expression: &str) -> Result<Arc<str>> {
    let text = expression.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote))
            && !inner.contains([quote, '\\'])
        {
            return Ok(inner.into());
        }
    }
    refuse(format!("only string literals are supported, not {expression:?}"))
}

pub(crate) fn alpn(value: &alpn_proto::FilterConfig) -> Result<IstioAlpn> {
    use alpn_proto::filter_config::Protocol;
    let mut built = IstioAlpn::default();
    for (index, each) in value.alpn_override.iter().enumerate() {
        let protocol = enumeration::<Protocol>(each.upstream_protocol).at_index("alpn_override", index)?;
        *match protocol {
            Protocol::Http10 => &mut built.http10,
            Protocol::Http11 => &mut built.http11,
            Protocol::Http2 => &mut built.http2,
        } = names(&each.alpn_override);
    }
    Ok(built)
}

pub(crate) fn peer_metadata(value: &peer::Config) -> Result<PeerMetadata> {
    Ok(PeerMetadata {
        downstream_discovery: list(&value.downstream_discovery, "downstream_discovery", discovery)?,
        upstream_discovery: list(&value.upstream_discovery, "upstream_discovery", discovery)?,
        downstream_propagation: list(&value.downstream_propagation, "downstream_propagation", propagation)?,
        upstream_propagation: list(&value.upstream_propagation, "upstream_propagation", propagation)?,
    })
}

fn discovery(value: &peer::config::DiscoveryMethod) -> Result<PeerMethod> {
    use peer::config::discovery_method::MethodSpecifier;
    Ok(match required(&value.method_specifier, "method_specifier")? {
        MethodSpecifier::Baggage(_) => PeerMethod::Baggage,
        MethodSpecifier::WorkloadDiscovery(_) => PeerMethod::WorkloadDiscovery,
        MethodSpecifier::IstioHeaders(headers) => {
            PeerMethod::IstioHeaders { skip_external_clusters: headers.skip_external_clusters }
        }
    })
}

fn propagation(value: &peer::config::PropagationMethod) -> Result<PeerMethod> {
    let peer::config::propagation_method::MethodSpecifier::IstioHeaders(headers) =
        required(&value.method_specifier, "method_specifier")?;
    Ok(PeerMethod::IstioHeaders { skip_external_clusters: headers.skip_external_clusters })
}

pub(crate) fn metadata_exchange(value: &mx::MetadataExchange) -> Result<MetadataExchange> {
    if value.protocol.is_empty() {
        return refuse("protocol: is required");
    }
    Ok(MetadataExchange { protocol: value.protocol.as_str().into() })
}
