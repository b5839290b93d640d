//! HTTP protocol options of a cluster, collected while policies apply and written last.

use super::input::{Common, ProxyClass};
use crate::wire::duration;
use meltemi_model::Protocol;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::core::v3::http1_protocol_options::{HeaderKeyFormat, header_key_format};
use meltemi_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, TypedExtensionConfig,
    UpstreamHttpProtocolOptions,
};
use meltemi_proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use meltemi_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use std::time::Duration;

const TYPE: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Istio's idle timeout for connections to unknown destinations.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

/// Which protocol the cluster speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// Nothing said: HTTP/1.1 where it is HTTP at all.
    #[default]
    Default,
    Http1PreservingCase,
    Http2,
    UseDownstream,
}

#[derive(Default)]
pub struct Options {
    pub upstream: Upstream,
    pub preserve_case: bool,
    pub common: CommonOptions,
    pub http2: Http2ProtocolOptions,
    pub auto: UpstreamHttpProtocolOptions,
    pub error_matcher: Option<meltemi_proto::envoy::config::common::matcher::v3::MatchPredicate>,
}

/// What a port's protocol implies before any policy.
pub fn of_port(protocol: Protocol, common: &Common) -> Options {
    let sniffed = protocol.is_sniffed();
    let preserve_case = common.preserve_header_case && (protocol.is_http() || sniffed);
    let upstream = if protocol.is_http2() {
        Upstream::Http2
    } else if sniffed && common.class == ProxyClass::Sidecar {
        Upstream::UseDownstream
    } else if preserve_case {
        Upstream::Http1PreservingCase
    } else {
        Upstream::Default
    };
    Options { upstream, preserve_case, ..Options::default() }
}

/// For clusters of unknown destinations.
pub fn passthrough(common: &Common) -> Options {
    Options {
        upstream: Upstream::UseDownstream,
        preserve_case: common.preserve_header_case,
        common: CommonOptions { idle_timeout: Some(duration(PASSTHROUGH_IDLE)), ..CommonOptions::default() },
        ..Options::default()
    }
}

impl Options {
    pub fn is_http2(&self) -> bool {
        self.upstream == Upstream::Http2
    }

    fn http1(&self) -> Http1ProtocolOptions {
        if !self.preserve_case {
            return Http1ProtocolOptions::default();
        }
        let formatter = TypedExtensionConfig {
            name: "preserve_case".into(),
            typed_config: Some(Any::pack(&PreserveCaseFormatterConfig::default())),
        };
        let header_format = Some(header_key_format::HeaderFormat::StatefulFormatter(formatter));
        Http1ProtocolOptions {
            header_key_format: Some(HeaderKeyFormat { header_format }),
            ..Http1ProtocolOptions::default()
        }
    }

    /// Writes the options, if there is anything to write.
    pub fn apply(self, cluster: &mut Cluster) {
        let nothing = self.upstream == Upstream::Default
            && self.common == CommonOptions::default()
            && self.auto == UpstreamHttpProtocolOptions::default()
            && self.error_matcher.is_none();
        if nothing {
            return;
        }
        let http1 = self.http1();
        let explicit =
            |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
        let upstream = match self.upstream {
            Upstream::Default | Upstream::Http1PreservingCase => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
            Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(self.http2)),
            Upstream::UseDownstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1),
                http2_protocol_options: Some(self.http2),
                ..UseDownstreamHttpConfig::default()
            }),
        };
        let some = |common: CommonOptions| (common != CommonOptions::default()).then_some(common);
        let options = HttpProtocolOptions {
            common_http_protocol_options: some(self.common),
            upstream_http_protocol_options: (self.auto != UpstreamHttpProtocolOptions::default()).then_some(self.auto),
            outlier_detection: self.error_matcher.map(|matcher| {
                meltemi_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::OutlierDetection {
                    error_matcher: Some(matcher),
                }
            }),
            upstream_protocol_options: Some(upstream),
            ..HttpProtocolOptions::default()
        };
        cluster.typed_extension_protocol_options.insert(TYPE.into(), Any::pack(&options));
    }
}
