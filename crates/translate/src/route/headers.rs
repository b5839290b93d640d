//! Header operations of a VirtualService.

use std::collections::BTreeMap;

use meltemi_config::networking::{HeaderOperations, Headers};
use meltemi_config::wire::Str;
use meltemi_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use meltemi_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};

#[derive(Debug, Default)]
pub struct Operations {
    pub request_add: Vec<HeaderValueOption>,
    pub request_remove: Vec<String>,
    pub response_add: Vec<HeaderValueOption>,
    pub response_remove: Vec<String>,
    /// `:authority` or `host` set by the rule: a host rewrite, since Envoy does not let the header itself be changed.
    pub authority: Option<String>,
}

pub fn operations(headers: Option<&Headers>) -> Operations {
    let Some(headers) = headers else { return Operations::default() };
    let request = headers.request.as_ref();
    let response = headers.response.as_ref();
    Operations {
        request_add: additions(request),
        request_remove: removals(request),
        response_add: additions(response),
        response_remove: removals(response),
        authority: request.and_then(|r| authority(&r.set).or_else(|| authority(&r.add))),
    }
}

fn additions(operations: Option<&HeaderOperations>) -> Vec<HeaderValueOption> {
    let Some(operations) = operations else { return Vec::new() };
    let set = operations.set.iter().map(|pair| option(pair, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter().map(|pair| option(pair, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).flatten().collect()
}

fn option((name, value): (&Str, &Str), action: HeaderAppendAction) -> Option<HeaderValueOption> {
    if is_internal(name) {
        return None;
    }
    let header = HeaderValue { key: name.to_string(), value: value.to_string(), ..HeaderValue::default() };
    Some(HeaderValueOption { header: Some(header), append_action: action as i32, ..HeaderValueOption::default() })
}

/// A header that is added to whatever is there.
pub fn appended(name: &str, value: String) -> HeaderValueOption {
    let header = HeaderValue { key: name.into(), value, ..HeaderValue::default() };
    let append_action = HeaderAppendAction::AppendIfExistsOrAdd as i32;
    HeaderValueOption { header: Some(header), append_action, ..HeaderValueOption::default() }
}

fn removals(operations: Option<&HeaderOperations>) -> Vec<String> {
    let names = operations.map(|o| o.remove.as_slice()).unwrap_or_default();
    names.iter().filter(|name| !is_internal(name)).map(ToString::to_string).collect()
}

fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn authority(pairs: &BTreeMap<Str, Str>) -> Option<String> {
    let named = |name: &Str| name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host");
    pairs.iter().find(|(name, _)| named(name)).map(|(_, value)| value.to_string())
}
