//! Access logs of both sides, entry by entry.

use super::client::Probe;
use super::{Side, Transcripts};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Operators whose values both sides must agree on, beyond those of [`PRESENT`].
const OPERATORS: &[&str] = &[
    "PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_CODE_DETAILS",
    "CONNECTION_TERMINATION_DETAILS",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "UPSTREAM_HOST",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_HOST_NAME",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "REQUESTED_SERVER_NAME",
    "ROUTE_NAME",
    "FILTER_CHAIN_NAME",
    "REQ(:METHOD)",
    "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
    "REQ(:AUTHORITY)",
    "REQ(:SCHEME)",
    "REQ(X-FORWARDED-FOR)",
    "REQ(X-ONE):4",
    "RESP(CONTENT-TYPE)",
    "RESP(X-BACKEND-HEADER)",
    "TRAILER(GRPC-STATUS)",
    "GRPC_STATUS",
    "GRPC_STATUS(SNAKE_STRING)",
    "GRPC_STATUS_NUMBER",
    "PATH(NQ)",
    "PATH(WQ:ORIG)",
    "PATH(NQ:PATH)",
    "QUERY_PARAM(x)",
    "METADATA(ROUTE:one:two)",
    "METADATA(CLUSTER:one:two)",
    "UPSTREAM_METADATA(envoy.lb:zone)",
    "ACCESS_LOG_TYPE",
    "DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:scope)",
    "DYNAMIC_METADATA(envoy.filters.http.jwt_authn:header:kid)",
    "DYNAMIC_METADATA(envoy.filters.http.jwt_authn:failed:message)",
    "DYNAMIC_METADATA(envoy.filters.http.jwt_authn:failed:code)",
    "DYNAMIC_METADATA(envoy.filters.http.ext_authz:who)",
    "DYNAMIC_METADATA(envoy.filters.http.rbac:shadow_engine_result)",
    "DYNAMIC_METADATA(envoy.filters.http.rbac:shadow_effective_policy_id)",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TLS_CIPHER",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
];

/// Operators of which only being there or not is compared.
const PRESENT: &[&str] = &[
    "START_TIME",
    "DURATION",
    "REQUEST_DURATION",
    "REQUEST_TX_DURATION",
    "RESPONSE_DURATION",
    "RESPONSE_TX_DURATION",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_CONNECTION_ID",
    "CONNECTION_ID",
    "REQ(X-REQUEST-ID)",
    "DOWNSTREAM_REMOTE_PORT",
    "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)",
];

/// For `access_log` of a connection manager or a TCP proxy.
pub fn config() -> Value {
    without(&[])
}

/// The same, with some operators left out.
pub fn without(left_out: &[&str]) -> Value {
    let mut format = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned();
    for operator in OPERATORS.iter().chain(PRESENT) {
        format += &if left_out.contains(operator) { "\t-".to_owned() } else { format!("\t%{operator}%") };
    }
    json!([{ "name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "@DIR@/access.log",
        "log_format": { "text_format_source": { "inline_string": format + "\n" } },
    } }])
}

/// Entries of a side by the probe's address.
fn read(side: &Side) -> BTreeMap<String, Vec<Vec<String>>> {
    let text = std::fs::read_to_string(side.dir.join("access.log")).unwrap_or_default();
    let mut entries: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let (key, rest) = line.split_once('\t').unwrap_or((line, ""));
        let values = OPERATORS.iter().chain(PRESENT).zip(rest.split('\t'));
        let shown = values.filter(|(_, value)| *value != "-").map(|(operator, value)| {
            let value = if PRESENT.contains(operator) { "present" } else { value };
            format!("log {operator}={value}")
        });
        entries.entry(key.to_owned()).or_default().push(shown.collect());
    }
    entries
}

/// Adds to each probe's transcripts what was logged of it.
pub fn append(probes: &[Probe], sides: &[Side; 2], transcripts: &mut Transcripts) {
    let count = |entries: &BTreeMap<String, Vec<Vec<String>>>| entries.values().map(Vec::len).sum::<usize>();
    let end = Instant::now() + Duration::from_secs(5);
    let mut before = (usize::MAX, usize::MAX);
    let both = loop {
        let both = [read(&sides[0]), read(&sides[1])];
        let now = (count(&both[0]), count(&both[1]));
        // Written in the background on both sides: complete once both agree and nothing more comes.
        if (now.0 == now.1 && now == before) || Instant::now() > end {
            break both;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(120));
    };
    for (number, (probe, transcripts)) in probes.iter().zip(transcripts).enumerate() {
        for (side, (entries, lines)) in both.iter().zip(transcripts).enumerate() {
            let port = sides[side].ports[probe.listener];
            let id = sides[side].id(number);
            for entry in entries.get(&probe.from.to_string()).into_iter().flatten() {
                lines.push("log entry".to_owned());
                lines
                    .extend(entry.iter().map(|line| line.replace(&format!(":{port}"), ":@PORT@").replace(&id, "@ID@")));
            }
        }
    }
}
