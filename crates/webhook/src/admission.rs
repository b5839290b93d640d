//! `admission.k8s.io` messages of v1 and v1beta1, as far as a webhook reads and answers them.
//!
//! The two versions have the same shape; an answer carries the version of its question.

use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

const GROUP: &str = "admission.k8s.io";

/// What the API server asks (`AdmissionReview.request`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdmissionRequest {
    /// Names this question; the answer repeats it.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Group, version and kind of `object`.
    pub kind: GroupVersionKind,
    pub namespace: String,
    /// Empty when the API server is yet to make one from `generateName`.
    pub name: String,
    pub dry_run: bool,
    /// `null` for `DELETE`.
    pub object: Value,
    /// `null` for `CREATE`.
    pub old_object: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// What the API server is told (`AdmissionReview.response`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdmissionResponse {
    pub allowed: bool,
    /// Why not (`status.message`); empty when there is nothing to say.
    pub message: String,
    /// HTTP status of a refusal (`status.code`); 0 leaves it to the API server.
    pub code: u16,
    /// Shown to who sent the object, whether it is stored or not.
    pub warnings: Vec<String>,
    /// A JSON patch (RFC 6902) of the object, before it is stored.
    pub patch: Option<Value>,
}

impl AdmissionResponse {
    #[must_use]
    pub fn allow() -> Self {
        Self { allowed: true, ..Self::default() }
    }

    #[must_use]
    pub fn refuse(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    #[must_use]
    pub fn patched(patch: Value) -> Self {
        Self { allowed: true, patch: Some(patch), ..Self::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error("apiVersion: {0:?} is none of admission.k8s.io/v1, admission.k8s.io/v1beta1")]
    Version(String),
    #[error("kind: {0:?} is not AdmissionReview")]
    Kind(String),
    #[error("request: missing")]
    NoRequest,
}

/// A question in the version that it was asked in.
#[derive(Debug, Clone)]
pub struct AdmissionReview {
    pub version: ReviewVersion,
    pub request: AdmissionRequest,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReviewVersion {
    #[default]
    V1,
    V1Beta1,
}

impl ReviewVersion {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }

    fn parse(api_version: &str) -> Option<Self> {
        let version = api_version.strip_prefix(GROUP)?.strip_prefix('/')?;
        [Self::V1, Self::V1Beta1].into_iter().find(|known| known.name() == version)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReview {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<AdmissionRequest>,
}

impl AdmissionReview {
    /// # Errors
    /// When it is no JSON, not an `AdmissionReview`, of another version, or asks nothing.
    pub fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        let raw: RawReview = serde_json::from_slice(body)?;
        if raw.kind != "AdmissionReview" {
            return Err(ReviewError::Kind(raw.kind));
        }
        let version = ReviewVersion::parse(&raw.api_version).ok_or(ReviewError::Version(raw.api_version))?;
        Ok(Self { version, request: raw.request.ok_or(ReviewError::NoRequest)? })
    }
}

/// The `AdmissionReview` that answers the question `uid`.
#[must_use]
pub fn answer(version: ReviewVersion, uid: &str, response: &AdmissionResponse) -> Value {
    let mut body = json!({ "uid": uid, "allowed": response.allowed });
    if !response.message.is_empty() || response.code != 0 {
        let mut status = json!({ "metadata": {}, "message": response.message });
        if response.code != 0 {
            status["code"] = json!(response.code);
        }
        body["status"] = status;
    }
    if !response.warnings.is_empty() {
        body["warnings"] = json!(response.warnings);
    }
    if let Some(patch) = &response.patch {
        body["patch"] = json!(base64::engine::general_purpose::STANDARD.encode(patch.to_string()));
        body["patchType"] = json!("JSONPatch");
    }
    json!({ "apiVersion": format!("{GROUP}/{}", version.name()), "kind": "AdmissionReview", "response": body })
}

#[cfg(test)]
mod tests;
