//! Following a store: one channel that always holds the newest set, so that a slow reader merges and never lags.

use std::sync::Arc;

use tokio::sync::watch;

use crate::set::{ChangeSet, ConfigSet};

/// A source of configuration.
pub trait ConfigStore: Send + Sync {
    /// What is in force now.
    fn snapshot(&self) -> Arc<ConfigSet>;

    /// Follows the store from its present state on.
    fn changes(&self) -> Changes;
}

/// A reader's place in the history of a store.
#[derive(Debug)]
pub struct Changes {
    receiver: watch::Receiver<Arc<ConfigSet>>,
    seen: Arc<ConfigSet>,
}

impl Changes {
    pub(crate) fn new(mut receiver: watch::Receiver<Arc<ConfigSet>>) -> Self {
        let seen = receiver.borrow_and_update().clone();
        Self { receiver, seen }
    }

    /// The set that the next change set starts from.
    pub fn seen(&self) -> &Arc<ConfigSet> {
        &self.seen
    }

    /// Waits for the store to differ from what was seen; several changes arrive as one. `None`: the store is gone.
    pub async fn next(&mut self) -> Option<(Arc<ConfigSet>, ChangeSet)> {
        loop {
            self.receiver.changed().await.ok()?;
            let set = self.receiver.borrow_and_update().clone();
            let changes = self.seen.diff(&set);
            self.seen = set.clone();
            if !changes.is_empty() {
                return Some((set, changes));
            }
        }
    }
}
