//! Validation of documents before they are stored (`/validate`), with the meaning of Istio's webhook.
//!
//! Owns which questions are answered with yes, and the configuration by which an API server asks (`configuration`). Pure;
//! linear in the document.

mod configuration;

use meltemi_config::{Document, Kind, Problem, Severity, legacy, parse_part};
use serde_json::{Map, Value, json};

pub use configuration::{Readiness, desired, probe};

use crate::admission::{AdmissionRequest, AdmissionResponse};

/// An answer has at most so many warnings, each at most so long: API servers cut what is more.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING_CHARS: usize = 240;
/// Of one refusal.
const MAX_ERRORS: usize = 20;

/// How a question ended: the labels of `galley_validation_passed` and `galley_validation_failed`. What nobody knows is
/// `unknown`, so that nobody who asks makes up series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub group: &'static str,
    pub version: &'static str,
    /// The plural of the kind.
    pub resource: &'static str,
    pub failure: Option<Failure>,
}

const UNKNOWN: &str = "unknown";

impl Outcome {
    fn of(request: &AdmissionRequest, failure: Option<Failure>) -> Self {
        let asked = &request.kind;
        let Some(info) = Kind::find(&asked.group, &asked.kind).map(Kind::info) else {
            return Self { group: UNKNOWN, version: UNKNOWN, resource: UNKNOWN, failure };
        };
        let version = info.versions.iter().copied().find(|version| *version == asked.version).unwrap_or(UNKNOWN);
        Self { group: info.group, version, resource: info.plural, failure }
    }
}

/// The label `reason` of `galley_validation_failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    UnsupportedOperation,
    UnknownType,
    Conversion,
    InvalidResource,
}

impl Failure {
    /// Istio's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedOperation => "unsupported_operation",
            Self::UnknownType => "unknown_type",
            Self::Conversion => "crd_conversion_error",
            Self::InvalidResource => "invalid_resource",
        }
    }
}

/// Answers a question.
#[must_use]
pub fn admit(request: &AdmissionRequest) -> AdmissionResponse {
    admit_and_count(request, &|_| {})
}

/// Answers a question and says how it ended, unless it was asked on trial.
#[must_use]
pub fn admit_and_count(request: &AdmissionRequest, count: &dyn Fn(&Outcome)) -> AdmissionResponse {
    let (response, failure) = judge(request);
    if !request.dry_run || failure.is_none() {
        count(&Outcome::of(request, failure));
    }
    response
}

fn judge(request: &AdmissionRequest) -> (AdmissionResponse, Option<Failure>) {
    let refuse = |failure, message: String| (AdmissionResponse::refuse(message), Some(failure));
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        // What is wrong may be taken away.
        return (
            AdmissionResponse::allow(),
            Some(Failure::UnsupportedOperation).filter(|_| request.operation != "DELETE"),
        );
    }
    if is_going_away(&request.object) {
        return (AdmissionResponse::allow(), None);
    }
    let (group, name) = (request.kind.group.as_str(), request.kind.kind.as_str());
    if let Some(instead) = legacy::replacement(group, name) {
        let message = format!("{name} of {group} was removed from Istio and has no effect; {instead}");
        return refuse(Failure::UnknownType, message);
    }
    let Some(kind) = Kind::find(group, name).filter(|_| !legacy::is_group(group)) else {
        return refuse(
            Failure::UnknownType,
            format!("unrecognized type {group}/{}, Kind={name}", request.kind.version),
        );
    };
    let Some(text) = document_text(request, kind) else {
        return refuse(Failure::Conversion, "cannot decode configuration: the object is not one".to_owned());
    };
    match parse_part(name, 1, &text).as_slice() {
        [document] => verdict(document),
        _ => refuse(Failure::Conversion, "cannot decode configuration: not one document".to_owned()),
    }
}

/// An object that waits for its finalizers can only go.
fn is_going_away(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The object as a document that can be read: with the preferred version, since all versions have one schema and an API
/// server may serve one that is newer; and with the part of its metadata that means something.
fn document_text(request: &AdmissionRequest, kind: Kind) -> Option<String> {
    let mut document = request.object.as_object()?.clone();
    document.insert("apiVersion".to_owned(), json!(kind.api_version()));
    document.insert("kind".to_owned(), json!(kind.as_str()));
    let metadata = document.get("metadata").and_then(Value::as_object);
    let mut kept = Map::new();
    for field in ["labels", "annotations", "generation", "creationTimestamp"] {
        if let Some(value) = metadata.and_then(|all| all.get(field)).filter(|value| !value.is_null()) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    let text =
        |field: &str| metadata.and_then(|all| all.get(field)).and_then(Value::as_str).filter(|text| !text.is_empty());
    // The server is yet to make a name of the prefix.
    let name = text("name").map(str::to_owned).or_else(|| Some(request.name.clone()).filter(|name| !name.is_empty()));
    let name = name.or_else(|| text("generateName").map(|prefix| format!("{prefix}x")))?;
    kept.insert("name".to_owned(), json!(name));
    let namespace = text("namespace").unwrap_or(&request.namespace);
    if !namespace.is_empty() {
        kept.insert("namespace".to_owned(), json!(namespace));
    }
    document.insert("metadata".to_owned(), kept.into());
    Some(Value::Object(document).to_string())
}

fn verdict(document: &Document) -> (AdmissionResponse, Option<Failure>) {
    let problems = document.check();
    let (errors, warnings): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.severity == Severity::Error);
    if errors.is_empty() && document.object.is_some() {
        let warnings = bounded(warnings.into_iter().map(sentence).collect());
        return (AdmissionResponse { warnings, ..AdmissionResponse::allow() }, None);
    }
    let (failure, what) = match document.object {
        Some(_) => (Failure::InvalidResource, "configuration is invalid"),
        None => (Failure::Conversion, "error decoding configuration"),
    };
    let mut text =
        format!("{what}: {}", errors.iter().take(MAX_ERRORS).map(|e| sentence(e)).collect::<Vec<_>>().join("; "));
    if errors.len() > MAX_ERRORS {
        text.push_str(&format!("; and {} more", errors.len() - MAX_ERRORS));
    }
    (AdmissionResponse::refuse(text), Some(failure))
}

/// Field and message: file, line and object are the asker's own.
fn sentence(problem: &Problem) -> String {
    let mut text = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
    text.push_str(&problem.message);
    if let Some(suggestion) = &problem.suggestion {
        text.push_str(&format!("; did you mean `{suggestion}`?"));
    }
    text
}

fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    warnings.truncate(MAX_WARNINGS);
    for warning in &mut warnings {
        if warning.chars().count() > MAX_WARNING_CHARS {
            *warning = warning.chars().take(MAX_WARNING_CHARS - 1).chain(['…']).collect();
        }
    }
    if more > 0 {
        warnings.push(format!("and {more} more; `meltemi validate` shows them all"));
    }
    warnings
}

#[cfg(test)]
mod tests;
