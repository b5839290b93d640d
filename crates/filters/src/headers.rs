//! Header rules of routes, virtual hosts and filters: removals, then additions whose values are formats.

use bytes::Bytes;
use meltemi_http::{ByteStr, HeaderName, HeaderValue, Headers, Method, RequestHead, ResponseHead, StatusCode};
use meltemi_plan::header::{AppendAction, HeaderAdd, HeaderMutation};
use meltemi_plan::{HeaderKey, HeaderRules};

use crate::format::{self, Scope};
use crate::info::StreamInfo;

/// Applies one level's rules to a request that is about to be forwarded.
pub fn apply_to_request(rules: &HeaderRules, head: &mut RequestHead, info: &StreamInfo) {
    for name in &rules.remove {
        head.headers.remove(name);
    }
    add_to_request(&rules.add, head, info);
}

/// Applies one level's rules to a response that is about to be sent.
pub fn apply_to_response(
    rules: &HeaderRules,
    head: &mut ResponseHead,
    request: Option<&RequestHead>,
    info: &StreamInfo,
) {
    for name in &rules.remove {
        head.headers.remove(name);
    }
    add_to_response(&rules.add, head, &Scope { request, ..Scope::new(info) });
}

pub(crate) fn add_to_request(adds: &[HeaderAdd], head: &mut RequestHead, info: &StreamInfo) {
    for add in adds {
        let value = evaluate(add, &Scope { request: Some(head), ..Scope::new(info) });
        if let Some(value) = value {
            set_on_request(&add.key, value, add.action, head);
        }
    }
}

pub(crate) fn set_on_request(key: &HeaderKey, value: HeaderValue, action: AppendAction, head: &mut RequestHead) {
    match key {
        HeaderKey::Name(name) if name == "host" => set_text(&mut head.authority, &value, action),
        HeaderKey::Name(name) => set(&mut head.headers, name, value, action),
        HeaderKey::Authority => set_text(&mut head.authority, &value, action),
        HeaderKey::Path => set_text(&mut head.path, &value, action),
        HeaderKey::Method => {
            if let Ok(method) = Method::from_bytes(value.as_bytes()) {
                head.method = method;
            }
        }
        // The scheme, protocol and status of a request are not for rules to set.
        HeaderKey::Scheme | HeaderKey::Protocol | HeaderKey::Status => {}
    }
}

fn add_to_response(adds: &[HeaderAdd], head: &mut ResponseHead, scope: &Scope<'_>) {
    for add in adds {
        let value = evaluate(add, &Scope { response: Some(&*head), ..*scope });
        let Some(value) = value else { continue };
        match &add.key {
            HeaderKey::Name(name) => set(&mut head.headers, name, value, add.action),
            HeaderKey::Status => {
                if let Ok(status) = StatusCode::from_bytes(value.as_bytes()) {
                    head.status = status;
                }
            }
            HeaderKey::Authority | HeaderKey::Path | HeaderKey::Method | HeaderKey::Scheme | HeaderKey::Protocol => {}
        }
    }
}

/// Adds to bare fields, as of a local reply.
pub fn add_to(adds: &[HeaderAdd], headers: &mut Headers, scope: &Scope<'_>) {
    for add in adds {
        if let (HeaderKey::Name(name), Some(value)) = (&add.key, evaluate(add, scope)) {
            set(headers, name, value, add.action);
        }
    }
}

pub(crate) fn mutate_request(mutations: &[HeaderMutation], head: &mut RequestHead, info: &StreamInfo) {
    for mutation in mutations {
        match mutation {
            HeaderMutation::Remove(name) => {
                head.headers.remove(name);
            }
            HeaderMutation::RemoveMatching(matcher) => head.headers.retain(|name, _| !matcher.matches(name.as_str())),
            HeaderMutation::Add(add) => add_to_request(std::slice::from_ref(add), head, info),
        }
    }
}

pub(crate) fn mutate_response(mutations: &[HeaderMutation], head: &mut ResponseHead, scope: &Scope<'_>) {
    for mutation in mutations {
        match mutation {
            HeaderMutation::Remove(name) => {
                head.headers.remove(name);
            }
            HeaderMutation::RemoveMatching(matcher) => head.headers.retain(|name, _| !matcher.matches(name.as_str())),
            HeaderMutation::Add(add) => add_to_response(std::slice::from_ref(add), head, scope),
        }
    }
}

/// The value to set; `None` when it is empty and not wanted so, or could not stand in a header.
fn evaluate(add: &HeaderAdd, scope: &Scope<'_>) -> Option<HeaderValue> {
    let value = match add.value.as_literal() {
        Some(literal) => Bytes::copy_from_slice(literal.as_bytes()),
        None => {
            let mut out = Vec::with_capacity(32);
            format::write(&add.value, scope, format::Missing::Empty, &mut out);
            out.into()
        }
    };
    if value.is_empty() && !add.keep_empty {
        return None;
    }
    HeaderValue::from_maybe_shared(value).ok()
}

pub(crate) fn set(headers: &mut Headers, name: &HeaderName, value: HeaderValue, action: AppendAction) {
    match (action, headers.contains(name)) {
        (AppendAction::AppendIfExistsOrAdd, _) | (AppendAction::AddIfAbsent, false) => {
            headers.append(name.clone(), value);
        }
        (AppendAction::OverwriteIfExistsOrAdd, _) | (AppendAction::OverwriteIfExists, true) => {
            headers.insert(name.clone(), value);
        }
        (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => {}
    }
}

/// A pseudo-header exists once: appending to it replaces it.
fn set_text(field: &mut ByteStr, value: &HeaderValue, action: AppendAction) {
    let keeps = match action {
        AppendAction::AddIfAbsent => !field.is_empty(),
        AppendAction::OverwriteIfExists => field.is_empty(),
        AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => false,
    };
    if let (false, Ok(text)) = (keeps, value.to_str()) {
        *field = ByteStr::from(text);
    }
}
