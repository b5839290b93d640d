//! Tokens judged by a Kubernetes API server: `authentication.k8s.io/v1` TokenReview, request and answer.
//!
//! How a review reaches an API server is for another to know ([`Reviews`]); here is what is asked, what an answer proves, and
//! for how long. A token that is shown again within [`REMEMBERED`] costs no further review; it is known by its digest alone.

#[cfg(test)]
mod tests;

use crate::TOKEN_AUDIENCE;
use crate::authenticate::{ServiceAccount, TokenAuthority, TokenRefusal};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// Every token of a service account is one of a user of this group.
const GROUP: &str = "system:serviceaccounts";

/// A proxy shows its token for its certificate and for its stream, one after the other; a pod that is gone is refused after
/// this (the API server itself remembers as long).
const REMEMBERED: Duration = Duration::from_secs(10);
/// Accounts that are remembered at once; beyond it every token is reviewed.
const MOST_REMEMBERED: usize = 20_000;
/// Reviews under way at once; more wait. Whoever shows tokens need not be anybody.
const MOST_REVIEWS: usize = 64;
/// For a review with its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Posts a TokenReview (JSON) to `/apis/authentication.k8s.io/v1/tokenreviews` and gives the answer's body, or why there is
/// none.
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
    extra: HashMap<String, Vec<String>>,
}

/// Of the pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

type Digest = [u8; 32];

/// Judges any token by asking an API server; the last to be asked.
pub struct TokenReviewer<R> {
    reviews: R,
    audiences: Vec<String>,
    turns: Semaphore,
    remembered: Mutex<HashMap<Digest, (Instant, ServiceAccount)>>,
}

impl<R: Reviews> TokenReviewer<R> {
    /// Takes tokens that are meant for one of these.
    pub fn new(reviews: R, audiences: Vec<String>) -> Self {
        let audiences = if audiences.is_empty() { vec![TOKEN_AUDIENCE.to_owned()] } else { audiences };
        Self { reviews, audiences, turns: Semaphore::new(MOST_REVIEWS), remembered: Mutex::default() }
    }

    fn request(&self, token: &str) -> Result<Zeroizing<String>, String> {
        let spec = ReviewSpec { token, audiences: &self.audiences };
        let review = Review { api_version: "authentication.k8s.io/v1", kind: "TokenReview", spec };
        serde_json::to_string(&review).map(Zeroizing::new).map_err(|e| e.to_string())
    }

    fn read(&self, answer: &str) -> Result<ServiceAccount, TokenRefusal> {
        let unreadable = |error| TokenRefusal::Unavailable(format!("answer of the API server: {error}"));
        let Reviewed { status } = serde_json::from_str(answer).map_err(unreadable)?;
        if !status.error.is_empty() {
            return Err(status.error.into());
        }
        let refused = |reason: &str| Err(TokenRefusal::Refused(reason.to_owned()));
        if !status.authenticated {
            return refused("not authenticated");
        }
        // An API server that gives no audience did not look at ours; the token is meant for itself.
        if !status.audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return refused("meant for another audience");
        }
        let account = ServiceAccount::from_subject(&status.user.username);
        match account.filter(|_| status.user.groups.iter().any(|group| group == GROUP)) {
            Some(account) => {
                let pod = status.user.extra.get(POD_NAME).and_then(|names| names.first());
                tracing::debug!(?account, ?pod, "token reviewed");
                Ok(account)
            }
            None => refused("of no service account"),
        }
    }

    async fn review(&self, token: &str) -> Result<ServiceAccount, TokenRefusal> {
        let request = self.request(token)?;
        let asking = async {
            // Never closed.
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            self.reviews.create(request).await
        };
        let answer = timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        self.read(&answer.map_err(TokenRefusal::Unavailable)?)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<Digest, (Instant, ServiceAccount)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall(&self, key: &Digest) -> Option<ServiceAccount> {
        let remembered = self.remembered();
        remembered.get(key).filter(|(since, _)| since.elapsed() < REMEMBERED).map(|(_, account)| account.clone())
    }

    fn remember(&self, key: Digest, account: &ServiceAccount) {
        let mut remembered = self.remembered();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, (since, _)| since.elapsed() < REMEMBERED);
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(key, (Instant::now(), account.clone()));
        }
    }
}

/// The digest of a token.
fn digest_of(token: &str) -> Digest {
    let mut key = Digest::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

#[tonic::async_trait]
impl<R: Reviews> TokenAuthority for TokenReviewer<R> {
    async fn judge(&self, token: &str) -> Option<Result<ServiceAccount, TokenRefusal>> {
        let key = digest_of(token);
        if let Some(account) = self.recall(&key) {
            return Some(Ok(account));
        }
        let judged = self.review(token).await;
        // What is refused may be granted in a moment: a token that is not valid yet, an account that is just made.
        if let Ok(account) = &judged {
            self.remember(key, account);
        }
        Some(judged)
    }
}
