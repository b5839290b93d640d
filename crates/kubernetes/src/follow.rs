//! A watch that never ends: what the server says, step by step, with outages waited out.
//!
//! Owns the waits between attempts and what is logged of an outage: once when it begins, once when it is over.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use meltemi_base::Backoff;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

const FIRST_WAIT: Duration = Duration::from_millis(200);
/// An API server that is back is noticed after this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

type Watch<T> = Pin<Box<dyn Stream<Item = watcher::Result<Event<T>>> + Send>>;

/// Which watches fail, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage(Arc<Mutex<BTreeMap<String, String>>>);

impl Outage {
    fn begins(&self, what: &str, reason: String) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.is_empty() {
            tracing::warn!("the API server cannot be followed ({what}: {reason}); what it said last stays in force");
        } else if failing.get(what) != Some(&reason) {
            tracing::debug!("{what}: {reason}");
        }
        failing.insert(what.to_owned(), reason);
    }

    fn ends(&self, what: &str) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.remove(what).is_some() && failing.is_empty() {
            tracing::info!("the API server is followed again");
        }
    }

    /// Nobody follows it any longer.
    fn forget(&self, what: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// What fails now, with the reason.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The steps of one watch.
pub(crate) struct Steps<T> {
    start: Box<dyn Fn() -> Watch<T> + Send>,
    watch: Watch<T>,
    what: String,
    outage: Outage,
    backoff: Backoff,
    /// After a failure: when to try again.
    retry: Option<Instant>,
}

impl<T: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static> Steps<T> {
    pub fn new(api: Api<T>, config: watcher::Config, what: String, outage: Outage) -> Self {
        let start = move || Box::pin(watcher(api.clone(), config.clone())) as Watch<T>;
        let watch = start();
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        Self { start: Box::new(start), watch, what, outage, backoff, retry: None }
    }

    /// The next step, whenever it comes.
    pub async fn next(&mut self) -> Event<T> {
        loop {
            if let Some(retry) = self.retry {
                tokio::time::sleep_until(retry).await;
                self.retry = None;
            }
            let step = self.watch.next().await;
            if let Some(event) = self.came(step) {
                return event;
            }
        }
    }

    /// The next step, if it is there already.
    pub fn ready(&mut self) -> Option<Event<T>> {
        let step = self.retry.is_none().then(|| self.watch.next().now_or_never()).flatten()?;
        self.came(step)
    }

    fn came(&mut self, step: Option<watcher::Result<Event<T>>>) -> Option<Event<T>> {
        match step {
            Some(Ok(event)) => {
                // A list begins before it is known whether it can be had.
                if !matches!(event, Event::Init) {
                    self.backoff.reset();
                    self.outage.ends(&self.what);
                }
                Some(event)
            }
            Some(Err(error)) => {
                self.failed(&error);
                None
            }
            None => {
                self.watch = (self.start)();
                None
            }
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        self.outage.begins(&self.what, error.to_string());
        // A server that comes back may have another history, from a copy of its storage: versions that we hold may be ahead of
        // its own, or stand for other changes than those that we saw, and nothing it says then would tell. So everything is asked
        // anew, but where a connection broke and another one is there at once.
        if matches!(error, watcher::Error::WatchStartFailed(_) | watcher::Error::WatchError(_)) {
            self.watch = (self.start)();
        }
        self.retry = Some(Instant::now() + self.backoff.next());
    }
}

impl<T> Drop for Steps<T> {
    fn drop(&mut self) {
        self.outage.forget(&self.what);
    }
}
