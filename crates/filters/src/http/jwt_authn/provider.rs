//! One provider: what it asks of a token, its keys, and the tokens that it has seen.

use std::sync::Arc;

use meltemi_plan::common::DataSource;
use meltemi_plan::jwt::{Expiry, JwtProvider, KeySource};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::JwtStats;
use super::cache::TokenCache;
use super::extract::Extractor;
use super::remote::KeyStore;
use crate::context::Context;
use crate::jwt::{KeySet, Status, Token};

pub(super) struct Provider {
    pub plan: Arc<JwtProvider>,
    pub extractor: Extractor,
    keys: Keys,
    cache: Option<Mutex<TokenCache>>,
    stats: Arc<JwtStats>,
}

enum Keys {
    /// `None`: what is configured is no set of keys; every token of the provider is refused.
    Here(Option<Arc<KeySet>>),
    /// Read when it is first needed.
    File(Arc<std::path::Path>, OnceCell<Option<Arc<KeySet>>>),
    Remote(Arc<KeyStore>),
}

impl Provider {
    pub fn new(plan: Arc<JwtProvider>, stats: &Arc<JwtStats>, context: &Context) -> Self {
        let keys = match &plan.keys {
            KeySource::Local(DataSource::Inline(bytes)) => Keys::Here(parse(&plan, bytes)),
            KeySource::Local(DataSource::Environment(name)) => {
                let value = std::env::var(&**name).unwrap_or_default();
                Keys::Here(parse(&plan, value.as_bytes()))
            }
            KeySource::Local(DataSource::File { path, .. }) => Keys::File(path.clone(), OnceCell::new()),
            KeySource::Remote(remote) => Keys::Remote(context.key_store(remote, stats)),
        };
        let cache = plan.cache.map(|config| Mutex::new(TokenCache::new(config)));
        let extractor = Extractor::new(std::iter::once(&*plan));
        Self { extractor, keys, cache, stats: stats.clone(), plan }
    }

    /// A token that was verified before and still would be.
    pub fn known(&self, text: &str) -> Option<Arc<Token>> {
        let found = self.cache.as_ref().and_then(|cache| {
            let keys = self.keys.at_hand()?;
            cache.lock().find(text, &keys, super::now(), self.plan.clock_skew.as_secs())
        });
        let counter = if found.is_some() { self.stats.jwt_cache_hit() } else { self.stats.jwt_cache_miss() };
        counter.inc();
        found
    }

    pub fn remember(&self, token: Arc<Token>) {
        if let (Some(cache), Some(keys)) = (&self.cache, self.keys.at_hand()) {
            cache.lock().insert(token, keys);
        }
    }

    /// Everything but the signature. `audiences` stand for the provider's, unless empty; `now` in seconds since 1970.
    pub fn check(&self, token: &Token, audiences: &[Arc<str>], now: u64) -> Result<(), Status> {
        token.check_time(now, self.plan.clock_skew.as_secs())?;
        let wanted = if audiences.is_empty() { &self.plan.audiences[..] } else { audiences };
        let of_us = |audience: &String| wanted.iter().any(|wanted| bare(wanted) == bare(audience));
        if !wanted.is_empty() && !token.audiences.iter().any(of_us) {
            return Err(Status::AudienceNotAllowed);
        }
        if self.plan.subjects.as_ref().is_some_and(|subjects| !subjects.matches(token.subject.as_str())) {
            return Err(Status::VerificationFailed);
        }
        let lives_right = match self.plan.expiry {
            Expiry::Optional => true,
            Expiry::Required => token.expiry != 0,
            Expiry::Within(limit) => token.expiry != 0 && token.expiry.saturating_sub(now) < limit.as_secs(),
        };
        if lives_right { Ok(()) } else { Err(Status::VerificationFailed) }
    }

    /// The signature; waits where the keys are still on their way.
    pub async fn verify(&self, token: &Token) -> Result<(), Status> {
        let keys = match &self.keys {
            Keys::Here(keys) => keys.clone().ok_or(Status::NoValidKeys)?,
            Keys::File(path, cell) => {
                let read = async { parse(&self.plan, &tokio::fs::read(path).await.unwrap_or_default()) };
                cell.get_or_init(|| read).await.clone().ok_or(Status::NoValidKeys)?
            }
            Keys::Remote(store) => store.keys().await?,
        };
        keys.verify(token)
    }
}

impl Keys {
    fn at_hand(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Here(keys) => keys.clone(),
            Self::File(_, cell) => cell.get().cloned().flatten(),
            Self::Remote(store) => store.at_hand(),
        }
    }
}

fn parse(plan: &JwtProvider, document: &[u8]) -> Option<Arc<KeySet>> {
    match KeySet::parse(document) {
        Ok(keys) => Some(Arc::new(keys)),
        Err(_) => {
            tracing::warn!(provider = %plan.name, issuer = %plan.issuer, "no usable key in the provider's JWKS");
            None
        }
    }
}

/// An audience without scheme and final slash.
fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}
