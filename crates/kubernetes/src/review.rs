//! Reviews by the API server: of tokens, and of who may read the Secrets of a namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::Client;
use kube::api::{Api, PostParams};
use meltemi_ca::{Reviews, ServiceAccount};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::error::reason;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// TokenReviews of an API server.
pub struct ApiReviews(pub Client);

#[tonic::async_trait]
impl Reviews for ApiReviews {
    async fn create(&self, review: Zeroizing<String>) -> Result<String, String> {
        let request = http::Request::post(TOKEN_REVIEWS).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(review.as_bytes().to_vec()).map_err(|error| error.to_string())?;
        // The message of an error is the server's; it does not have the token.
        self.0.request_text(request).await.map_err(|error| reason(&error))
    }
}

/// A permission is asked for anew after this, and a refusal sooner: whoever waits for a role gets it soon.
const GRANTED_FOR: Duration = Duration::from_secs(300);
const REFUSED_FOR: Duration = Duration::from_secs(15);
/// Accounts known at once; those that are asked about least recently leave.
const MOST_ACCOUNTS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Namespace and name.
type Account = (String, String);

#[derive(Debug, Clone, Copy)]
struct Known {
    granted: bool,
    until: Instant,
    used: Instant,
}

/// Who may list the Secrets of its own namespace, as a gateway must to be given credentials from there (istiod's rule).
#[derive(Clone)]
pub struct SecretAccess {
    client: Client,
    known: Arc<Mutex<BTreeMap<Account, Known>>>,
    /// Accounts of which somebody wanted to know and nothing is known yet.
    unknown: Arc<Mutex<BTreeSet<Account>>>,
    wanted: Arc<Notify>,
    /// Counts answers that differ from those of before.
    changes: watch::Sender<u64>,
}

impl SecretAccess {
    pub fn new(client: Client) -> Self {
        let (known, unknown, wanted) = (Arc::default(), Arc::default(), Arc::default());
        Self { client, known, unknown, wanted, changes: watch::Sender::new(0) }
    }

    /// Changes when somebody may who might not before, or the other way round.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is known of an account. Nobody may of whom nothing is known; that is asked, and [`Self::subscribe`] tells.
    pub fn is_granted(&self, namespace: &str, account: &str) -> bool {
        let key = (namespace.to_owned(), account.to_owned());
        if let Some(found) = lock(&self.known).get_mut(&key) {
            found.used = Instant::now();
            return found.granted;
        }
        let mut unknown = lock(&self.unknown);
        if unknown.len() < MOST_ACCOUNTS && unknown.insert(key) {
            self.wanted.notify_one();
        }
        false
    }

    /// Asks about an account. While the server cannot be asked its last answer holds; false where there is none.
    async fn ask(&self, account: &Account) -> bool {
        let (namespace, name) = account;
        match timeout(PATIENCE, self.review(namespace, name)).await {
            Ok(Ok(status)) => {
                self.learn(account.clone(), status.allowed);
                return true;
            }
            Ok(Err(error)) => tracing::warn!(namespace, name, "may it read secrets? {}", reason(&error)),
            Err(_) => tracing::warn!(namespace, name, "may it read secrets? No answer in time"),
        }
        false
    }

    async fn review(&self, namespace: &str, account: &str) -> kube::Result<SubjectAccessReviewStatus> {
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some("list".to_owned()),
            resource: Some("secrets".to_owned()),
            ..ResourceAttributes::default()
        };
        let user = Some(ServiceAccount::subject(namespace, account));
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user,
            groups: Some(groups.to_vec()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.unwrap_or_default())
    }

    fn learn(&self, key: Account, granted: bool) {
        let now = Instant::now();
        let until = now + if granted { GRANTED_FOR } else { REFUSED_FOR };
        let before = {
            let mut known = lock(&self.known);
            if known.len() >= MOST_ACCOUNTS && !known.contains_key(&key) {
                let oldest = known.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| key.clone());
                oldest.map(|oldest| known.remove(&oldest));
            }
            known.insert(key, Known { granted, until, used: now })
        };
        if before.is_some_and(|before| before.granted) != granted {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Asks about everybody who is not known, and again in time, for as long as it is awaited; accounts that nobody wanted to
    /// know about for long leave.
    pub async fn keep(&self) {
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(REFUSED_FOR) => {}
            }
            let mut due = std::mem::take(&mut *lock(&self.unknown));
            {
                let (mut known, now) = (lock(&self.known), Instant::now());
                known.retain(|_, known| now < known.used + 2 * GRANTED_FOR);
                due.extend(known.iter().filter(|(_, known)| known.until <= now).map(|(key, _)| key.clone()));
            }
            for account in due {
                if !self.ask(&account).await && !lock(&self.known).contains_key(&account) {
                    lock(&self.unknown).insert(account);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
