//! Access logs as messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_proto::Any;
use meltemi_proto::envoy::config::accesslog::v3::{
    AccessLog as Message, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter,
};
use meltemi_proto::envoy::config::core::v3::{
    ApiVersion, GrpcService, SubstitutionFormatString, TypedExtensionConfig, grpc_service, substitution_format_string,
};
use meltemi_proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use meltemi_proto::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use meltemi_proto::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use meltemi_proto::prost_types::{self, value::Kind};

use crate::profile::{AccessLog, JsonField, LogFormat, Profile};
use crate::wire::inline_string;

pub fn of_http(profile: &Profile) -> Vec<Message> {
    profile.access_logs.iter().filter(|log| !matches!(log, AccessLog::Grpc { http: false, .. })).map(message).collect()
}

pub fn of_tcp(profile: &Profile) -> Vec<Message> {
    profile.access_logs.iter().filter(|log| !matches!(log, AccessLog::Grpc { http: true, .. })).map(message).collect()
}

/// Of a listener: only connections that found no filter chain, since all others are logged by the chain.
pub fn of_listener(profile: &Profile) -> Vec<Message> {
    if !profile.listener_access_log {
        return Vec::new();
    }
    let no_route = AccessLogFilter {
        filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".into()],
        })),
    };
    of_tcp(profile).into_iter().map(|log| Message { filter: Some(no_route.clone()), ..log }).collect()
}

fn message(log: &AccessLog) -> Message {
    let (name, config) = match log {
        AccessLog::File { path, format, omit_empty } => {
            ("envoy.access_loggers.file", Any::pack(&file(path, format, *omit_empty)))
        }
        AccessLog::Grpc { cluster, authority, http, log_name } => {
            let common_config = Some(grpc(cluster, authority, log_name));
            if *http {
                let config = HttpGrpcAccessLogConfig { common_config, ..HttpGrpcAccessLogConfig::default() };
                ("envoy.access_loggers.http_grpc", Any::pack(&config))
            } else {
                ("envoy.tcp_grpc_access_log", Any::pack(&TcpGrpcAccessLogConfig { common_config }))
            }
        }
    };
    Message { name: name.into(), filter: None, config_type: Some(access_log::ConfigType::TypedConfig(config)) }
}

fn file(path: &str, format: &LogFormat, omit_empty: bool) -> FileAccessLog {
    let mut log_format =
        SubstitutionFormatString { omit_empty_values: omit_empty, ..SubstitutionFormatString::default() };
    match format {
        LogFormat::Text(text) => {
            log_format.formatters = formatters(text.contains("%REQ_WITHOUT_QUERY"));
            log_format.format = Some(substitution_format_string::Format::TextFormatSource(inline_string(&**text)));
        }
        LogFormat::Json(fields) => {
            log_format.formatters = formatters(fields.values().any(needs_query_formatter));
            log_format.format = Some(substitution_format_string::Format::JsonFormat(object(fields)));
        }
    }
    FileAccessLog {
        path: path.into(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(log_format)),
    }
}

fn needs_query_formatter(field: &JsonField) -> bool {
    match field {
        JsonField::Text(text) => text.contains("%REQ_WITHOUT_QUERY"),
        JsonField::Raw(_) => false,
        JsonField::Object(fields) => fields.values().any(needs_query_formatter),
    }
}

fn formatters(without_query: bool) -> Vec<TypedExtensionConfig> {
    let formatter = || TypedExtensionConfig {
        name: "envoy.formatter.req_without_query".into(),
        typed_config: Some(Any::pack(&ReqWithoutQuery::default())),
    };
    without_query.then(formatter).into_iter().collect()
}

fn object(fields: &BTreeMap<Arc<str>, JsonField>) -> prost_types::Struct {
    prost_types::Struct { fields: fields.iter().map(|(name, field)| (name.to_string(), value(field))).collect() }
}

fn value(field: &JsonField) -> prost_types::Value {
    let kind = match field {
        JsonField::Text(text) => Kind::StringValue(text.to_string()),
        JsonField::Raw(text) => match (text.parse::<bool>(), text.parse::<f64>()) {
            (Ok(boolean), _) => Kind::BoolValue(boolean),
            (_, Ok(number)) => Kind::NumberValue(number),
            _ => Kind::NullValue(0),
        },
        JsonField::Object(fields) => Kind::StructValue(object(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// A gRPC service behind one of the mesh's clusters.
pub fn grpc_service(cluster: &str, authority: &str) -> GrpcService {
    let envoy = grpc_service::EnvoyGrpc {
        cluster_name: cluster.into(),
        authority: authority.into(),
        ..grpc_service::EnvoyGrpc::default()
    };
    GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)), ..GrpcService::default() }
}

fn grpc(cluster: &str, authority: &str, log_name: &str) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: log_name.into(),
        grpc_service: Some(grpc_service(cluster, authority)),
        transport_api_version: ApiVersion::V3 as i32,
        filter_state_objects_to_log: vec!["upstream_peer".into(), "downstream_peer".into()],
        ..CommonGrpcAccessLogConfig::default()
    }
}
