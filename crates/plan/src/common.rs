//! Values that several resources share: addresses, fractions, metadata, socket options.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Arbitrary structured data: `google.protobuf.Struct` and `Value`.
pub use serde_json::Value;

/// `envoy.config.core.v3.Address`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    /// A host name that someone resolves (`STRICT_DNS`, `LOGICAL_DNS`).
    Name {
        host: Arc<str>,
        port: u16,
    },
    /// A path, or an abstract name that starts with `@`.
    Pipe {
        path: Arc<Path>,
        mode: u32,
    },
    /// Another listener of this process.
    Internal {
        listener: Arc<str>,
        endpoint: Arc<str>,
    },
}

impl Address {
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Name { .. } | Self::Pipe { .. } | Self::Internal { .. } => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Pipe { path, .. } => write!(f, "{}", path.display()),
            Self::Internal { listener, endpoint } => write!(f, "envoy://{listener}/{endpoint}"),
        }
    }
}

/// `envoy.type.v3.FractionalPercent`; runtime overrides are resolved when the plan is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fraction {
    pub numerator: u32,
    pub denominator: u32,
}

impl Fraction {
    pub const ALWAYS: Self = Self { numerator: 100, denominator: 100 };
    pub const NEVER: Self = Self { numerator: 0, denominator: 100 };

    /// Whether this random value falls into the fraction.
    pub fn hits(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }

    pub fn of_percent(percent: f64) -> Self {
        // Two decimals, as Envoy's sampling decisions have.
        Self { numerator: (percent.clamp(0.0, 100.0) * 100.0).round() as u32, denominator: 10_000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketState {
    Prebind,
    Bound,
    Listening,
}

/// One `setsockopt`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    pub level: i32,
    pub name: i32,
    pub value: SocketOptionValue,
    pub state: SocketState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SocketOptionValue {
    Int(i32),
    Bytes(Arc<[u8]>),
}

/// `envoy.config.core.v3.Metadata`: filter name → struct.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    pub filters: BTreeMap<Arc<str>, Value>,
}

impl Metadata {
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The value under `filter` and then each key of `path`.
    pub fn value<S: AsRef<str>>(&self, filter: &str, path: &[S]) -> Option<&Value> {
        path.iter().try_fold(self.filters.get(filter)?, |value, key| value.get(key.as_ref()))
    }

    /// Whether every top-level key of `wanted` has an equal value here under `filter`: endpoint subset and transport
    /// socket matching.
    pub fn holds(&self, filter: &str, wanted: &Value) -> bool {
        let Some(wanted) = wanted.as_object() else { return false };
        wanted.is_empty()
            || self
                .filters
                .get(filter)
                .is_some_and(|have| wanted.iter().all(|(key, value)| have.get(key) == Some(value)))
    }
}

/// Where bytes come from. Files are read by the caller: this crate does no I/O.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DataSource {
    Inline(bytes::Bytes),
    File { path: Arc<Path>, watched_directory: Option<Arc<Path>> },
    Environment(Arc<str>),
}

/// An xDS subscription's server, as far as it is not the one ADS stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigSource {
    Ads,
    /// A gRPC stream of its own to this cluster (`sds-grpc` in Istio's bootstrap).
    Grpc {
        cluster: Arc<str>,
    },
    /// A file with a DiscoveryResponse.
    Path(Arc<Path>),
}
