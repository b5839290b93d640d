//! Keys that an issuer serves: fetched in the background, one fetch for all workers, the last good copy kept.
//!
//! Requests that come before the first keys wait for the fetch that is under way, at most as long as its tries may take. Once
//! there are keys, an issuer that is down or sends nonsense changes nothing; after a failure the next try waits.

use std::sync::Arc;
use std::time::Duration;

use meltemi_base::Backoff;
use meltemi_http::{ByteStr, Method, RequestHead, Scheme, StatusCode};
use meltemi_plan::jwt::RemoteKeys;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::JwtStats;
use crate::call::{Call, Caller};
use crate::jwt::{KeySet, Status};

/// Bytes of a JWKS document.
const LIMIT: usize = 1024 * 1024;
/// How long before they expire keys are fetched anew, where that is done ahead.
const AHEAD: Duration = Duration::from_secs(5);
/// Between a failure and the next try, where nothing else is said.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// The document that the keys are from.
    document: bytes::Bytes,
    /// Until when the keys are taken for current.
    current_until: Option<Instant>,
    /// No request asks for keys before.
    failed_until: Option<Instant>,
}

/// The keys of one address. Shared by all filters that name it.
pub(crate) struct KeyStore {
    plan: RemoteKeys,
    state: Mutex<State>,
    wanted: Arc<Notify>,
    /// The number of fetches that ended.
    fetched: watch::Sender<u64>,
    stats: Arc<JwtStats>,
}

/// Fetches for a [`KeyStore`] as long as that lives; run it beside the requests.
pub struct KeyFetcher {
    store: std::sync::Weak<KeyStore>,
    wanted: Arc<Notify>,
}

impl Drop for KeyStore {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

impl KeyStore {
    pub fn new(plan: RemoteKeys, stats: Arc<JwtStats>) -> (Arc<Self>, KeyFetcher) {
        let wanted = Arc::new(Notify::new());
        let fetched = watch::Sender::new(0);
        let store = Arc::new(Self { plan, state: Mutex::default(), wanted: wanted.clone(), fetched, stats });
        let fetcher = KeyFetcher { store: Arc::downgrade(&store), wanted };
        (store, fetcher)
    }

    pub fn plan(&self) -> &RemoteKeys {
        &self.plan
    }

    /// The last good keys.
    pub fn at_hand(&self) -> Option<Arc<KeySet>> {
        self.state.lock().keys.clone()
    }

    /// Current keys, else the last good ones.
    pub async fn keys(&self) -> Result<Arc<KeySet>, Status> {
        let mut fetched = self.fetched.subscribe();
        if let Some(answer) = self.known(Instant::now()) {
            return answer;
        }
        self.wanted.notify_one();
        let _ = tokio::time::timeout(self.longest(), fetched.changed()).await;
        self.at_hand().ok_or(Status::FetchFailed)
    }

    /// `None`: it is worth waiting for.
    fn known(&self, now: Instant) -> Option<Result<Arc<KeySet>, Status>> {
        let state = self.state.lock();
        let is_before = |time: Option<Instant>| time.is_some_and(|time| now < time);
        // What is fetched ahead is never waited for again.
        let kept = self.plan.ahead.is_some() && state.keys.is_some();
        let settled = kept || is_before(state.current_until) || is_before(state.failed_until);
        settled.then(|| state.keys.clone().ok_or(Status::FetchFailed))
    }

    /// How long all tries of a fetch may take.
    fn longest(&self) -> Duration {
        let tries = self.plan.retries.saturating_add(1);
        (self.plan.timeout.saturating_mul(tries)).saturating_add(self.plan.backoff_max.saturating_mul(tries))
    }

    /// One fetch with its tries. How long to wait for the next, where that is done ahead.
    async fn fetch(&self, caller: &dyn Caller) -> Duration {
        let mut backoff = Backoff::new(self.plan.backoff_base.max(Duration::from_millis(1)), self.plan.backoff_max);
        let mut found = self.attempt(caller).await;
        for _ in 0..self.plan.retries {
            if found.is_ok() {
                break;
            }
            tokio::time::sleep(backoff.next()).await;
            found = self.attempt(caller).await;
        }
        let pause = self.settle(found, Instant::now());
        self.fetched.send_modify(|ended| *ended += 1);
        pause
    }

    async fn attempt(&self, caller: &dyn Caller) -> Result<(bytes::Bytes, KeySet), String> {
        let plan = &self.plan;
        let mut head = RequestHead::new(Method::GET, ByteStr::from(&*plan.authority), ByteStr::from(&*plan.path));
        head.scheme = if plan.https { Scheme::Https } else { Scheme::Http };
        let call = Call {
            cluster: plan.cluster.clone(),
            head,
            body: bytes::Bytes::new(),
            timeout: plan.timeout,
            limit: LIMIT,
        };
        let answer = caller.call(call).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("status {}", answer.status.as_u16()));
        }
        let keys = KeySet::parse(&answer.body).map_err(|status| status.to_string())?;
        Ok((answer.body, keys))
    }

    fn settle(&self, found: Result<(bytes::Bytes, KeySet), String>, now: Instant) -> Duration {
        let plan = &self.plan;
        let mut state = self.state.lock();
        match found {
            Ok((document, keys)) => {
                self.stats.jwks_fetch_success().inc();
                if state.keys.is_none() || state.document != document {
                    state.keys = Some(Arc::new(keys));
                    state.document = document;
                }
                state.current_until = now.checked_add(plan.cache_duration);
                state.failed_until = None;
                plan.cache_duration.checked_sub(AHEAD).filter(|rest| !rest.is_zero()).unwrap_or(plan.cache_duration)
            }
            Err(error) => {
                self.stats.jwks_fetch_failed().inc();
                tracing::warn!(cluster = %plan.cluster, authority = %plan.authority, error, "JWKS not fetched");
                let pause = plan.ahead.unwrap_or(AFTER_FAILURE);
                state.failed_until = now.checked_add(pause);
                pause
            }
        }
    }
}

impl KeyFetcher {
    /// Fetches whenever keys are wanted, or ahead of that, until nobody has the store any more.
    pub async fn run(self, caller: impl Caller) {
        let now = Instant::now();
        let mut next = self.store.upgrade().and_then(|store| store.plan.ahead.map(|_| now));
        loop {
            let due = async {
                match next {
                    Some(time) => tokio::time::sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                () = due => false,
                () = self.wanted.notified() => true,
            };
            let Some(store) = self.store.upgrade() else { return };
            if asked && store.known(Instant::now()).is_some() {
                // Asked for while the last fetch was under way.
                continue;
            }
            let pause = store.fetch(&caller).await.max(SHORTEST_PAUSE);
            next = store.plan.ahead.and_then(|_| Instant::now().checked_add(pause));
        }
    }
}

/// Between two fetches, whatever the configuration says.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
