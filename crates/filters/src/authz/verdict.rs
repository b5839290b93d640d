//! What an authorization service answered.

use meltemi_http::{HeaderName, HeaderValue, StatusCode};
use meltemi_plan::HeaderKey;
use meltemi_plan::header::AppendAction;
use meltemi_proto::envoy::config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction};
use meltemi_proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response};
use serde_json::{Map, Value};

use super::attributes::json_map;
use crate::edit::{Action, Edit};

#[derive(Debug)]
pub(crate) enum Verdict {
    Ok(Changes),
    Denied(Refusal),
    /// No answer, or one that says so, with what to tell the client.
    Error(Option<Refusal>),
}

/// What becomes of a request that is allowed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub request: Vec<Edit>,
    pub remove: Vec<HeaderName>,
    pub query_set: Vec<(String, String)>,
    pub query_remove: Vec<String>,
    /// To the response, whoever answers.
    pub response: Vec<Edit>,
    pub metadata: Map<String, Value>,
}

impl Changes {
    /// Whether the request will be another.
    pub fn touch_request(&self) -> bool {
        !(self.request.is_empty()
            && self.remove.is_empty()
            && self.query_set.is_empty()
            && self.query_remove.is_empty())
    }
}

/// What a client gets instead of an answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// `None`: as the filter says.
    pub status: Option<StatusCode>,
    pub headers: Vec<Edit>,
    pub body: String,
    pub metadata: Map<String, Value>,
}

impl Verdict {
    pub fn of(answer: CheckResponse) -> Self {
        let outer = answer.dynamic_metadata.as_ref().map(json_map).unwrap_or_default();
        let code = answer.status.as_ref().map_or(0, |status| status.code);
        match (code, answer.http_response) {
            (0, Some(check_response::HttpResponse::OkResponse(ok))) => Self::Ok(changes(ok, outer)),
            (0, _) => Self::Ok(Changes { metadata: outer, ..Changes::default() }),
            (_, Some(check_response::HttpResponse::ErrorResponse(error))) => {
                Self::Error(Some(refusal(error, None, outer)))
            }
            (_, Some(check_response::HttpResponse::DeniedResponse(denied))) => {
                Self::Denied(refusal(denied, Some(StatusCode::FORBIDDEN), outer))
            }
            (_, Some(check_response::HttpResponse::OkResponse(_)) | None) => {
                Self::Denied(refusal(DeniedHttpResponse::default(), Some(StatusCode::FORBIDDEN), outer))
            }
        }
    }
}

#[allow(deprecated, reason = "its older place of metadata counts before the newer")]
fn changes(ok: OkHttpResponse, outer: Map<String, Value>) -> Changes {
    Changes {
        request: ok.headers.iter().filter_map(request_edit).collect(),
        remove: ok.headers_to_remove.iter().filter_map(|name| removable(name)).collect(),
        query_set: ok.query_parameters_to_set.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        query_remove: ok.query_parameters_to_remove,
        response: ok.response_headers_to_add.iter().filter_map(edit).collect(),
        metadata: ok.dynamic_metadata.as_ref().map_or(outer, json_map),
    }
}

fn refusal(told: DeniedHttpResponse, status: Option<StatusCode>, metadata: Map<String, Value>) -> Refusal {
    let code = told.status.and_then(|status| u16::try_from(status.code).ok()).filter(|code| *code >= 200);
    Refusal {
        status: code.and_then(|code| StatusCode::from_u16(code).ok()).or(status),
        headers: told.headers.iter().filter_map(edit).collect(),
        body: told.body,
        metadata,
    }
}

/// Neither pseudo-headers nor the host: without them there is no request.
pub(crate) fn removable(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| *name != ::http::header::HOST)
}

/// As Envoy does it: a request's header is replaced, or what there is of it is added to; no other action is known.
#[allow(deprecated, reason = "many services say `append`")]
fn request_edit(option: &HeaderValueOption) -> Option<Edit> {
    let joins = option.append.unwrap_or(false);
    let action = if joins { Action::JoinExisting } else { Action::As(AppendAction::OverwriteIfExistsOrAdd) };
    edit(option).map(|edit| Edit { action, ..edit })
}

/// What cannot stand in a header is left out.
#[allow(deprecated, reason = "many services say `append`")]
fn edit(option: &HeaderValueOption) -> Option<Edit> {
    let header = option.header.as_ref()?;
    let text = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let action = match option.append {
        Some(true) => Action::As(AppendAction::AppendIfExistsOrAdd),
        Some(false) => Action::As(AppendAction::OverwriteIfExistsOrAdd),
        None => Action::As(match HeaderAppendAction::try_from(option.append_action).ok()? {
            HeaderAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
            HeaderAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
            HeaderAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
        }),
    };
    Some(Edit { key: HeaderKey::parse(&header.key).ok()?, value: HeaderValue::from_bytes(text).ok()?, action })
}
