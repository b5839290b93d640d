//! Commands over parts of the request that may have been rewritten.

use crate::error::{Result, refuse};
use crate::format::{HostChoice, Operator, PathChoice, ServerName};

pub(super) fn path(text: &str) -> Result<Operator> {
    let (query, choice) = text.split_once(':').unwrap_or((text, ""));
    let with_query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return refuse(format!("%PATH%: unknown argument {other}")),
    };
    let original = match choice {
        "" | "ORIG_OR_PATH" => PathChoice::OriginalOrCurrent,
        "ORIG" => PathChoice::Original,
        "PATH" => PathChoice::Current,
        other => return refuse(format!("%PATH%: unknown argument {other}")),
    };
    Ok(Operator::Path { with_query, original })
}

pub(super) fn server_name(text: &str) -> Result<Operator> {
    let (choice, host) = text.split_once(':').unwrap_or((text, ""));
    let host = match host {
        "" | "ORIG_OR_HOST" => HostChoice::OriginalOrCurrent,
        "ORIG" => HostChoice::Original,
        "HOST" => HostChoice::Current,
        other => return refuse(format!("%REQUESTED_SERVER_NAME%: unknown argument {other}")),
    };
    Ok(Operator::RequestedServerName(match choice {
        "" | "SNI_ONLY" => ServerName::Sni,
        "SNI_FIRST" => ServerName::SniOrHost(host),
        "HOST_FIRST" => ServerName::Host(host),
        other => return refuse(format!("%REQUESTED_SERVER_NAME%: unknown argument {other}")),
    }))
}

pub(super) fn query_parameters(text: &str) -> Result<Operator> {
    match text {
        "" | "ORIG" => Ok(Operator::QueryParameters { decoded: false }),
        "DECODED" => Ok(Operator::QueryParameters { decoded: true }),
        other => refuse(format!("%QUERY_PARAMS%: unknown argument {other}")),
    }
}
