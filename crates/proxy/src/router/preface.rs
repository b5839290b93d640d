//! PROXY protocol upstream: what a connection says before anything else, and who may share it.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use meltemi_filters::ConnectionInfo;
use meltemi_net::{
    Stream,
    proxy_protocol::{self, Addresses, Version},
};
use meltemi_upstream::{Cluster, Endpoint};

/// The header of a connection to a host whose cluster wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Preface {
    version: Version,
    /// The downstream's; `None`: nobody's but our own.
    addresses: Option<Addresses>,
}

/// Of this process alone, so that nobody can choose an address whose key is another's.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Preface {
    /// For a connection on behalf of a downstream.
    pub fn of(cluster: &Cluster, endpoint: &Endpoint, downstream: Option<&ConnectionInfo>) -> Option<Self> {
        let version = cluster.proxy_protocol(endpoint)?;
        let addresses = downstream.and_then(|connection| {
            let (source, destination) = (connection.remote.socket()?, connection.local.socket()?);
            Some(Addresses { source, destination })
        });
        Some(Self { version, addresses })
    }

    pub fn encode(&self, stream: &Stream) -> Vec<u8> {
        proxy_protocol::encode(self.version, self.addresses.as_ref(), stream)
    }

    /// Tells connections apart that must not be shared.
    pub fn key(&self) -> u64 {
        KEYS.hash_one(self)
    }
}
