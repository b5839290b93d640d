//! The TCP proxy network filter.

use crate::access_log::AccessLog;
use crate::common::Value;
use crate::format::Format;
use crate::header::HeaderAdd;
use crate::on_demand::OnDemand;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    pub cluster: TcpCluster,
    /// `None`: never (Envoy's default is one hour).
    pub idle_timeout: Option<Duration>,
    pub max_downstream_duration: Option<Duration>,
    pub access_logs: Vec<AccessLog>,
    pub max_connect_attempts: u32,
    /// Base and maximum of the back-off between connect attempts.
    pub backoff: Option<(Duration, Duration)>,
    pub hash_source_ip: bool,
    /// Wanted endpoint metadata under `envoy.lb`.
    pub metadata_match: Option<Value>,
    /// What a connection does whose cluster is not there.
    pub on_demand: Option<OnDemand>,
    pub tunnel: Option<Tunnel>,
}

/// The bytes go within a request to the host, and not on a connection of their own (`tunneling_config`).
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    pub hostname: Format,
    /// POST to this path; `None`: CONNECT.
    pub post_path: Option<Arc<str>>,
    pub headers: Vec<HeaderAdd>,
}

#[derive(Debug, Clone)]
pub enum TcpCluster {
    Single(Arc<str>),
    Weighted { clusters: Vec<TcpWeighted>, total: u64 },
}

#[derive(Debug, Clone)]
pub struct TcpWeighted {
    pub name: Arc<str>,
    pub weight: u32,
    pub metadata_match: Option<Value>,
}

impl TcpCluster {
    /// The cluster that this random value chooses.
    pub fn pick(&self, random: u64) -> (&Arc<str>, Option<&Value>) {
        match self {
            Self::Single(name) => (name, None),
            Self::Weighted { clusters, total } => {
                let mut point = random % (*total).max(1);
                for cluster in clusters {
                    let weight = u64::from(cluster.weight);
                    if point < weight {
                        return (&cluster.name, cluster.metadata_match.as_ref());
                    }
                    point -= weight;
                }
                // Unreachable while `total` is the sum of the weights; the conversion refuses an empty list.
                let last = &clusters[clusters.len() - 1];
                (&last.name, last.metadata_match.as_ref())
            }
        }
    }
}
