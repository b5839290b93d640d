//! `telemetry.istio.io` Telemetry.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::security::{LabelSelector, PolicyTargetReference};
use crate::wire::{Double, Str, enumeration, message};

message! {
    /// `telemetry.istio.io` Telemetry.
    struct Telemetry {
        selector: Option<LabelSelector>,
        /// Deprecated; `target_refs` with one entry.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        tracing: Vec<Tracing>,
        metrics: Vec<Metrics>,
        access_logging: Vec<AccessLogging>,
    }

    struct ProviderRef {
        name: Str,
    }

    struct Tracing {
        #[serde(rename = "match")]
        matches: Option<TracingSelector>,
        providers: Vec<ProviderRef>,
        random_sampling_percentage: Option<Double>,
        disable_span_reporting: Option<bool>,
        custom_tags: BTreeMap<Str, TelemetryCustomTag>,
        use_request_id_for_trace_sampling: Option<bool>,
        enable_istio_tags: Option<bool>,
        disable_context_propagation: Option<bool>,
    }

    struct TracingSelector {
        mode: WorkloadMode,
    }

    /// Exactly one of the four.
    struct TelemetryCustomTag {
        literal: Option<LiteralTag>,
        environment: Option<EnvironmentTag>,
        header: Option<HeaderTag>,
        formatter: Option<FormatterTag>,
    }

    struct LiteralTag {
        value: Str,
    }

    struct EnvironmentTag {
        name: Str,
        default_value: Str,
    }

    struct HeaderTag {
        name: Str,
        default_value: Str,
    }

    struct FormatterTag {
        value: Str,
    }

    struct Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverrides>,
        #[serde(with = "crate::wire::duration")]
        reporting_interval: Option<Duration>,
    }

    struct MetricsOverrides {
        #[serde(rename = "match")]
        matches: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<Str, TagOverride>,
    }

    /// At most one of `metric` and `custom_metric`.
    struct MetricSelector {
        metric: Option<IstioMetric>,
        custom_metric: Option<Str>,
        mode: WorkloadMode,
    }

    struct TagOverride {
        operation: TagOperation,
        value: Option<Str>,
    }

    struct AccessLogging {
        #[serde(rename = "match")]
        matches: Option<LogSelector>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<AccessLogFilter>,
    }

    struct LogSelector {
        mode: WorkloadMode,
    }

    struct AccessLogFilter {
        /// CEL.
        expression: Str,
    }
}

enumeration! {
    enum WorkloadMode {
        #[default]
        ClientAndServer = "CLIENT_AND_SERVER",
        Client = "CLIENT",
        Server = "SERVER",
    }

    enum TagOperation {
        #[default]
        Upsert = "UPSERT",
        Remove = "REMOVE",
    }

    enum IstioMetric {
        #[default]
        AllMetrics = "ALL_METRICS",
        RequestCount = "REQUEST_COUNT",
        RequestDuration = "REQUEST_DURATION",
        RequestSize = "REQUEST_SIZE",
        ResponseSize = "RESPONSE_SIZE",
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS",
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS",
        TcpSentBytes = "TCP_SENT_BYTES",
        TcpReceivedBytes = "TCP_RECEIVED_BYTES",
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES",
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES",
    }
}
