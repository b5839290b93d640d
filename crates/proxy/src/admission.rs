//! Whether a connection may go on: the rules and the authorization services of its chain, in their order.
//!
//! Asked once, before the first byte is served, when the listener filters, the handshake and metadata exchange have told what
//! there is to know. A chain without such filters pays for a look at its filters and no more.

use std::rc::Rc;

use meltemi_filters::{
    ConnectionInfo, LogType, ResponseFlags, Scope, StreamInfo,
    authz::{self, Admission},
    rbac,
};
use meltemi_plan::{NetworkFilter, listener::NetworkRbac};

use crate::{
    call::Calls,
    worker::{LiveChain, Worker},
};

/// The connection's record, unless a filter refuses it; then it is logged and closed.
pub(crate) async fn admitted(
    worker: &Rc<Worker>,
    info: ConnectionInfo,
    chain: &LiveChain,
) -> Option<Rc<ConnectionInfo>> {
    let info = Rc::new(info);
    let guards = || chain.plan.filters.iter().filter(|filter| is_guard(filter));
    if guards().next().is_none() {
        return Some(info);
    }
    let on_demand = chain.plan.filters.iter().any(waits);
    let mut stream = StreamInfo::new(Rc::clone(&info));
    for guard in guards() {
        // Boxed: few connections have such filters.
        if let Err(details) = Box::pin(ask(guard, (worker, on_demand), &mut stream)).await {
            tracing::debug!(remote = %info.remote, details, "connection refused");
            stream.connection_termination_details = Some(details.into());
            stream.finish();
            chain.tcp.logs.log(&Scope { log_type: LogType::TcpConnectionEnd, ..Scope::new(&stream) });
            return None;
        }
    }
    Some(info)
}

fn is_guard(filter: &NetworkFilter) -> bool {
    matches!(filter, NetworkFilter::Rbac(_) | NetworkFilter::ExtAuthz(_))
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

async fn ask(
    filter: &NetworkFilter,
    (worker, on_demand): (&Rc<Worker>, bool),
    stream: &mut StreamInfo,
) -> Result<(), String> {
    match filter {
        NetworkFilter::Rbac(config) => by_rules(config, stream),
        NetworkFilter::ExtAuthz(config) => {
            let calls = Calls { worker, world: &worker.world(), on_demand };
            match authz::admits(config, stream, &calls).await {
                Admission::Allowed | Admission::Unasked => Ok(()),
                Admission::Denied => {
                    stream.flags |= ResponseFlags::UNAUTHORIZED_EXTERNAL;
                    Err("ext_authz_close".to_owned())
                }
            }
        }
        _ => Ok(()),
    }
}

fn by_rules(config: &NetworkRbac, stream: &mut StreamInfo) -> Result<(), String> {
    if let Some(shadow) = &config.rules.shadow_rules {
        let found = rbac::evaluate(shadow, None, stream).as_metadata(&config.rules.shadow_rules_stat_prefix);
        stream.find_out("envoy.filters.network.rbac", found);
    }
    let Some(rules) = &config.rules.rules else { return Ok(()) };
    let verdict = rbac::evaluate(rules, None, stream);
    if verdict.allowed { Ok(()) } else { Err(rbac::denial(verdict.policy)) }
}
