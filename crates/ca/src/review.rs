//! Tokens judged by a Kubernetes API server: `authentication.k8s.io/v1` TokenReview, request and answer.
//!
//! How a review reaches an API server is for another to know ([`Reviews`]); here is what is asked and what an answer proves.

#[cfg(test)]
mod tests;

use crate::TOKEN_AUDIENCE;
use crate::authenticate::{ServiceAccount, TokenAuthority};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Every token of a service account is one of a user of this group.
const GROUP: &str = "system:serviceaccounts";

/// Posts a TokenReview (JSON) to `/apis/authentication.k8s.io/v1/tokenreviews` and gives the answer's body.
#[tonic::async_trait]
pub trait Reviews: Send + Sync {
    async fn create(&self, review: Zeroizing<String>) -> Result<String, String>;
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'a str,
    kind: &'a str,
    spec: ReviewSpec<'a>,
}

#[derive(Serialize)]
struct ReviewSpec<'a> {
    token: &'a str,
    audiences: &'a [String],
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    authenticated: bool,
    audiences: Vec<String>,
    error: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
}

/// Judges any token by asking an API server; the last to be asked.
pub struct TokenReviewer<R> {
    reviews: R,
    audiences: Vec<String>,
}

impl<R: Reviews> TokenReviewer<R> {
    pub fn new(reviews: R) -> Self {
        Self { reviews, audiences: vec![TOKEN_AUDIENCE.to_owned()] }
    }

    fn request(&self, token: &str) -> Result<Zeroizing<String>, String> {
        let spec = ReviewSpec { token, audiences: &self.audiences };
        let review = Review { api_version: "authentication.k8s.io/v1", kind: "TokenReview", spec };
        serde_json::to_string(&review).map(Zeroizing::new).map_err(|e| e.to_string())
    }

    fn read(&self, answer: &str) -> Result<ServiceAccount, String> {
        let Reviewed { status } = serde_json::from_str(answer).map_err(|e| format!("answer of the API server: {e}"))?;
        if !status.error.is_empty() {
            return Err(status.error);
        }
        if !status.authenticated {
            return Err("not authenticated".to_owned());
        }
        // An API server that gives no audience did not look at ours; the token is meant for itself.
        if !status.audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return Err("meant for another audience".to_owned());
        }
        if !status.user.groups.iter().any(|group| group == GROUP) {
            return Err("of no service account".to_owned());
        }
        ServiceAccount::from_subject(&status.user.username).ok_or_else(|| "of no service account".to_owned())
    }
}

#[tonic::async_trait]
impl<R: Reviews> TokenAuthority for TokenReviewer<R> {
    async fn judge(&self, token: &str) -> Option<Result<ServiceAccount, String>> {
        let request = match self.request(token) {
            Ok(request) => request,
            Err(reason) => return Some(Err(reason)),
        };
        Some(self.reviews.create(request).await.and_then(|answer| self.read(&answer)))
    }
}
