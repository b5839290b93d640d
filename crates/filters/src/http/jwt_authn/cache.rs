//! Tokens that were verified before, the least recently used leave first. Its memory is bounded by its entries times the
//! length of a token; what has expired is dropped when it is met.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meltemi_plan::jwt::JwtCache;

use crate::jwt::{KeySet, Token};

struct Entry {
    token: Arc<Token>,
    /// What verified it: other keys know nothing of it.
    keys: Arc<KeySet>,
    used: u64,
}

pub(super) struct TokenCache {
    config: JwtCache,
    entries: HashMap<Arc<str>, Entry>,
    /// When each was used last.
    order: BTreeMap<u64, Arc<str>>,
    clock: u64,
}

impl TokenCache {
    pub fn new(config: JwtCache) -> Self {
        Self { config, entries: HashMap::new(), order: BTreeMap::new(), clock: 0 }
    }

    /// A token that these keys have verified and that has not expired.
    pub fn find(&mut self, text: &str, keys: &Arc<KeySet>, now: u64, skew: u64) -> Option<Arc<Token>> {
        let entry = self.entries.get_mut(text)?;
        let good = Arc::ptr_eq(&entry.keys, keys) && entry.token.check_time(now, skew).is_ok();
        let name = self.order.remove(&entry.used)?;
        if !good {
            self.entries.remove(text);
            return None;
        }
        self.clock += 1;
        entry.used = self.clock;
        self.order.insert(self.clock, name);
        Some(entry.token.clone())
    }

    pub fn insert(&mut self, token: Arc<Token>, keys: Arc<KeySet>) {
        if token.text().len() > self.config.max_token_bytes {
            return;
        }
        let name: Arc<str> = token.text().into();
        self.clock += 1;
        if let Some(before) = self.entries.insert(name.clone(), Entry { token, keys, used: self.clock }) {
            self.order.remove(&before.used);
        }
        self.order.insert(self.clock, name);
        if self.entries.len() > self.config.entries
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}
