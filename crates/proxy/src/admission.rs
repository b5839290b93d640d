//! Whether a connection may go on: the rules and the authorization services of its chain, in their order.
//!
//! Asked once, before the first byte is served, when the listener filters, the handshake and metadata exchange have told what
//! there is to know. A chain without such filters pays for a look at its filters and no more.

use std::rc::Rc;

use meltemi_filters::{ConnectionInfo, LogType, Scope, StreamInfo};
use meltemi_plan::NetworkFilter;

use crate::{
    call::Calls,
    worker::{LiveChain, Worker},
    world::World,
};

/// The connection's record, unless a filter refuses it; then it is logged and closed.
pub(crate) async fn admitted(
    worker: &Rc<Worker>,
    info: ConnectionInfo,
    chain: &LiveChain,
) -> Option<Rc<ConnectionInfo>> {
    let info = Rc::new(info);
    if chain.tcp.guards.is_empty() {
        return Some(info);
    }
    let world = worker.world();
    let calls = Calls { worker, world: &world, on_demand: chain.plan.filters.iter().any(waits) };
    let mut stream = StreamInfo::new(Rc::clone(&info));
    for guard in &chain.tcp.guards {
        // Boxed: few connections have such filters.
        if let Err(details) = Box::pin(guard.admit(&mut stream, &calls)).await {
            tracing::debug!(remote = %info.remote, details, "connection refused");
            stream.connection_termination_details = Some(details.into());
            stream.finish();
            chain.tcp.logs.log(&Scope { log_type: LogType::TcpConnectionEnd, ..Scope::new(&stream) });
            return None;
        }
    }
    Some(info)
}

/// Whether what is not there is asked for here.
fn waits(filter: &NetworkFilter) -> bool {
    let on_demand = match filter {
        NetworkFilter::TcpProxy(proxy) => proxy.on_demand.as_ref(),
        NetworkFilter::HttpConnectionManager(manager) => manager.on_demand.as_ref(),
        _ => None,
    };
    on_demand.is_some_and(|waits| waits.clusters)
}

/// Whether anything here asks for clusters that are not there. Looks at every listener: for calls that are few.
pub(crate) fn anything_waits(world: &World) -> bool {
    let chains = world.listeners.values().flat_map(|listener| listener.chains.iter().chain(&listener.default_chain));
    chains.flat_map(|chain| &chain.plan.filters).any(waits)
}

#[cfg(test)]
mod tests;
