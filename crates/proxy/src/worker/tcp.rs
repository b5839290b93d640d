//! What a chain's network filters need at run time beside their plan.

use std::sync::Arc;

use bytes::Bytes;
use meltemi_filters::{AccessLogs, ConnectionRate, Context, Direction, Guard, Place, TcpStats, exchange};
use meltemi_plan::dynamic_forward::SniForward;
use meltemi_plan::{FilterChain, NetworkFilter};

/// Built once for each chain of a worker.
pub struct LiveTcp {
    pub stats: Vec<TcpStats>,
    pub logs: AccessLogs,
    /// What metadata exchange sends first; the same for every connection.
    pub introduction: Bytes,
    /// How a connection finds its host in a dynamic forward proxy cluster.
    pub sni_forward: Option<Arc<SniForward>>,
    /// In the order of the chain's filters.
    pub rates: Vec<Arc<ConnectionRate>>,
    /// In the same order.
    pub guards: Vec<Guard>,
}

impl LiveTcp {
    pub fn new(chain: &FilterChain, direction: Direction, context: &Arc<Context>) -> Self {
        let stats = chain.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::IstioStats(config) => Some(TcpStats::new(config, direction, context)),
            _ => None,
        });
        let logs = chain.filters.iter().find_map(|filter| match filter {
            NetworkFilter::TcpProxy(proxy) => Some(&proxy.access_logs[..]),
            _ => None,
        });
        let rates = chain.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::ConnectionRateLimit(limit) => Some(ConnectionRate::of(limit, Place::Network, context)),
            _ => None,
        });
        Self {
            rates: rates.collect(),
            guards: chain.filters.iter().filter_map(|filter| Guard::of(filter, context)).collect(),
            stats: stats.collect(),
            logs: AccessLogs::new(logs.unwrap_or_default(), &context.logs),
            introduction: exchange::introduction(&context.node),
            sni_forward: chain.filters.iter().find_map(|filter| match filter {
                NetworkFilter::SniDynamicForward(forward) => Some(forward.clone()),
                _ => None,
            }),
        }
    }
}
