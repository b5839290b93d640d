//! Access loggers and their filters.

use super::common::{enumeration, list, optional_fraction, required, resolve, structure, unknown_type, unpack};
use super::header::header_matcher;
use super::rbac::metadata_matcher;
use crate::access_log::{AccessLog, AccessLogFilter, AccessLogFormat, AccessLogSink, Comparison};
use crate::common::Fraction;
use crate::error::{At, PlanError, Result, refuse};
use crate::format::{Format, JsonFormat};
use crate::hcm::BodyFormat;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::accesslog::v3 as log;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::data::accesslog::v3::AccessLogType;
use meltemi_proto::envoy::extensions::access_loggers::file::v3 as file;
use meltemi_proto::envoy::extensions::access_loggers::stream::v3 as stream;
use std::path::Path;
use std::sync::Arc;

/// Envoy's default line.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Every short response flag that a filter may name.
const FLAGS: &[&str] = &[
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH",
    "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

pub(crate) fn access_logs(values: &[log::AccessLog], field: &str) -> Result<Vec<AccessLog>> {
    list(values, field, access_log)
}

fn access_log(value: &log::AccessLog) -> Result<AccessLog> {
    let log::access_log::ConfigType::TypedConfig(any) = required(&value.config_type, "typed_config")?;
    let (sink, format) = resolve(any).and_then(|any| sink(&any)).at("typed_config")?;
    Ok(AccessLog {
        name: value.name.as_str().into(),
        filter: value.filter.as_ref().map(filter).transpose().at("filter")?,
        sink,
        format,
    })
}

fn sink(any: &Any) -> Result<(AccessLogSink, AccessLogFormat)> {
    if any.is::<file::FileAccessLog>() {
        let config: file::FileAccessLog = unpack(any)?;
        let sink = match config.path.as_str() {
            "" => return refuse("path: is required"),
            "/dev/stdout" => AccessLogSink::Stdout,
            "/dev/stderr" => AccessLogSink::Stderr,
            path => AccessLogSink::File(Arc::from(Path::new(path))),
        };
        return Ok((sink, file_format(&config)?));
    }
    if any.is::<stream::StdoutAccessLog>() {
        let config: stream::StdoutAccessLog = unpack(any)?;
        let format =
            config.access_log_format.map(|stream::stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        return Ok((AccessLogSink::Stdout, optional_format(format.as_ref())?));
    }
    if any.is::<stream::StderrAccessLog>() {
        let config: stream::StderrAccessLog = unpack(any)?;
        let format =
            config.access_log_format.map(|stream::stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        return Ok((AccessLogSink::Stderr, optional_format(format.as_ref())?));
    }
    unknown_type(any)
}

fn file_format(config: &file::FileAccessLog) -> Result<AccessLogFormat> {
    use file::file_access_log::AccessLogFormat as Kind;
    match config.access_log_format.as_ref() {
        None => optional_format(None),
        Some(Kind::Format(text)) if text.is_empty() => optional_format(None),
        Some(Kind::Format(text)) => text_format(text, false).at("format"),
        Some(Kind::JsonFormat(fields)) => json_format(fields, false, false).at("json_format"),
        Some(Kind::TypedJsonFormat(fields)) => json_format(fields, false, false).at("typed_json_format"),
        Some(Kind::LogFormat(format)) => log_format(format).at("log_format"),
    }
}

fn optional_format(value: Option<&core::SubstitutionFormatString>) -> Result<AccessLogFormat> {
    value.map_or_else(|| text_format(DEFAULT, false), |format| log_format(format).at("log_format"))
}

fn text_format(text: &str, omit_empty: bool) -> Result<AccessLogFormat> {
    Ok(AccessLogFormat::Text { format: Format::parse(text)?, omit_empty })
}

fn json_format(fields: &meltemi_proto::prost_types::Struct, omit_empty: bool, sorted: bool) -> Result<AccessLogFormat> {
    Ok(AccessLogFormat::Json { format: JsonFormat::of(&structure(fields))?, omit_empty, sorted })
}

fn log_format(value: &core::SubstitutionFormatString) -> Result<AccessLogFormat> {
    use core::substitution_format_string::Format as Kind;
    let omit = value.omit_empty_values;
    match required(&value.format, "format")? {
        Kind::TextFormat(text) => text_format(text, omit).at("text_format"),
        Kind::TextFormatSource(source) => text_format(&inline_text(source).at("text_format_source")?, omit),
        Kind::JsonFormat(fields) => {
            let sorted = value.json_format_options.as_ref().is_some_and(|options| options.sort_properties);
            json_format(fields, omit, sorted).at("json_format")
        }
    }
}

/// Text of a source that holds it itself: files are replaced by their content before conversion.
pub(crate) fn inline_text(source: &core::DataSource) -> Result<String> {
    use core::data_source::Specifier;
    match source.specifier.as_ref() {
        Some(Specifier::InlineString(text)) => Ok(text.clone()),
        Some(Specifier::InlineBytes(bytes)) => {
            String::from_utf8(bytes.to_vec()).map_err(|_| PlanError::new("inline_bytes: not UTF-8"))
        }
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) => refuse("only inline text is supported"),
        None => refuse("is required"),
    }
}

/// A local reply's or direct response's body.
pub(crate) fn body_format(value: &core::SubstitutionFormatString) -> Result<BodyFormat> {
    use core::substitution_format_string::Format as Kind;
    let kind = |default: &str| -> Arc<str> {
        if value.content_type.is_empty() { default.into() } else { value.content_type.as_str().into() }
    };
    Ok(match required(&value.format, "format")? {
        Kind::TextFormat(text) => {
            BodyFormat::Text { format: Format::parse(text).at("text_format")?, content_type: kind("text/plain") }
        }
        Kind::TextFormatSource(source) => {
            let text = inline_text(source).at("text_format_source")?;
            BodyFormat::Text {
                format: Format::parse(&text).at("text_format_source")?,
                content_type: kind("text/plain"),
            }
        }
        Kind::JsonFormat(fields) => BodyFormat::Json {
            format: JsonFormat::of(&structure(fields)).at("json_format")?,
            content_type: kind("application/json"),
        },
    })
}

fn comparison(value: &Option<log::ComparisonFilter>) -> Result<(Comparison, u32)> {
    use log::comparison_filter::Op;
    let comparison = required(value, "comparison")?;
    let op = match enumeration::<Op>(comparison.op).at("comparison.op")? {
        Op::Eq => Comparison::Equal,
        Op::Ge => Comparison::AtLeast,
        Op::Le => Comparison::AtMost,
        Op::Ne => Comparison::NotEqual,
    };
    Ok((op, required(&comparison.value, "comparison.value")?.default_value))
}

pub(crate) fn filter(value: &log::AccessLogFilter) -> Result<AccessLogFilter> {
    use log::access_log_filter::FilterSpecifier as Kind;
    Ok(match required(&value.filter_specifier, "filter_specifier")? {
        Kind::StatusCodeFilter(status) => {
            let (op, value) = comparison(&status.comparison).at("status_code_filter")?;
            AccessLogFilter::StatusCode { op, value }
        }
        Kind::DurationFilter(duration) => {
            let (op, value) = comparison(&duration.comparison).at("duration_filter")?;
            AccessLogFilter::Duration { op, value }
        }
        Kind::NotHealthCheckFilter(_) => AccessLogFilter::NotHealthCheck,
        Kind::TraceableFilter(_) => AccessLogFilter::Traceable,
        Kind::RuntimeFilter(runtime) => AccessLogFilter::Fraction {
            fraction: optional_fraction(runtime.percent_sampled.as_ref(), Fraction::NEVER).at("runtime_filter")?,
            independent_random: runtime.use_independent_randomness,
        },
        Kind::AndFilter(and) => AccessLogFilter::And(filters(&and.filters).at("and_filter")?),
        Kind::OrFilter(or) => AccessLogFilter::Or(filters(&or.filters).at("or_filter")?),
        Kind::HeaderFilter(header) => AccessLogFilter::Header(
            header_matcher(required(&header.header, "header_filter.header")?).at("header_filter.header")?,
        ),
        Kind::ResponseFlagFilter(flags) => {
            AccessLogFilter::ResponseFlags(list(&flags.flags, "response_flag_filter.flags", |flag| {
                if FLAGS.contains(&flag.as_str()) {
                    Ok(Arc::from(flag.as_str()))
                } else {
                    refuse(format!("unknown flag {flag:?}"))
                }
            })?)
        }
        Kind::GrpcStatusFilter(grpc) => AccessLogFilter::GrpcStatus {
            statuses: list(&grpc.statuses, "grpc_status_filter.statuses", |status| {
                u32::try_from(*status).map_err(|_| PlanError::new("is negative"))
            })?,
            exclude: grpc.exclude,
        },
        Kind::MetadataFilter(metadata) => AccessLogFilter::Metadata {
            matcher: metadata_matcher(required(&metadata.matcher, "metadata_filter.matcher")?)
                .at("metadata_filter.matcher")?,
            if_missing: metadata.match_if_key_not_found.unwrap_or(true),
        },
        Kind::LogTypeFilter(types) => AccessLogFilter::LogType {
            types: list(&types.types, "log_type_filter.types", |kind| {
                Ok(Arc::from(enumeration::<AccessLogType>(*kind)?.as_str_name()))
            })?,
            exclude: types.exclude,
        },
        Kind::ExtensionFilter(_) => return refuse("extension_filter: is not supported"),
    })
}

fn filters(values: &[log::AccessLogFilter]) -> Result<Vec<AccessLogFilter>> {
    if values.len() < 2 {
        return refuse("filters: at least two are needed");
    }
    list(values, "filters", filter)
}
