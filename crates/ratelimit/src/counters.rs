//! Where hits are counted: one small interface before memory and Redis.

mod memory;
mod redis;
pub(crate) mod resp;

use meltemi_telemetry::Registry;
use meltemi_telemetry::metrics::Labels;

pub(crate) use memory::Memory;
use redis::Redis;
pub use redis::{Credential, RedisOptions};

/// Where to count.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In this process, for about so many keys at once.
    Memory {
        keys: usize,
    },
    Redis(RedisOptions),
}

/// Hits on one key. The key names its window, so a count never goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub key: String,
    pub hits: u64,
    /// When the window is over, in seconds since 1970.
    pub ends: u64,
    /// How long the window is, in seconds.
    pub length: u64,
}

/// Why hits were not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CounterError {
    #[error("redis: {0}")]
    Unavailable(String),
    #[error("redis: no answer in time")]
    TimedOut,
    #[error("redis: {0}")]
    Refused(String),
    #[error("redis: more requests wait than may")]
    Full,
}

/// The counts.
#[derive(Debug)]
pub(crate) enum Counters {
    Memory(Memory),
    Redis(Redis),
}

impl Counters {
    pub fn start(backend: Backend, registry: &Registry) -> Self {
        match backend {
            Backend::Memory { keys } => {
                let evicted = registry.counter("meltemi_ratelimit_evicted_windows_total", Labels::default());
                Self::Memory(Memory::new(keys, evicted))
            }
            Backend::Redis(options) => Self::Redis(Redis::start(options)),
        }
    }

    /// Adds the hits, and gives the count of each key after that, in their order. `now` in seconds since 1970.
    pub async fn add(&self, hits: Vec<Hit>, now: u64) -> Result<Vec<u64>, CounterError> {
        match self {
            Self::Memory(memory) => Ok(hits.iter().map(|hit| memory.add(hit, now)).collect()),
            Self::Redis(redis) => redis.add(hits).await,
        }
    }
}
