//! One accepted configuration, as every worker sees it.

use meltemi_plan::{ConnectionFacts, FilterChain, Listener, RouteConfiguration};
use meltemi_tls::ServerTls;
use meltemi_upstream::ClusterSet;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Immutable. A request takes the current one once and keeps it to its end.
#[derive(Debug, Default)]
pub struct World {
    /// Grows by one with each publication.
    pub generation: u64,
    pub listeners: BTreeMap<Arc<str>, Arc<ActiveListener>>,
    /// Subscribed route configurations by name; inline ones are in their listener.
    pub routes: HashMap<Arc<str>, Arc<RouteConfiguration>>,
    pub clusters: ClusterSet,
}

/// A listener whose routes and contexts are there.
#[derive(Debug)]
pub struct ActiveListener {
    pub plan: Arc<Listener>,
    /// In the order of the plan's chains.
    pub chains: Vec<ChainRuntime>,
    pub default_chain: Option<ChainRuntime>,
}

#[derive(Debug, Clone)]
pub struct ChainRuntime {
    pub plan: Arc<FilterChain>,
    pub tls: Option<ServerTls>,
}

impl ActiveListener {
    /// The index of the chain for a connection, or `None` for the default one, with its runtime; nothing if no chain takes it.
    pub fn choose(&self, facts: &ConnectionFacts<'_>) -> Option<(Option<usize>, &ChainRuntime)> {
        match self.plan.matcher.find(facts) {
            Some(index) => self.chains.get(index).map(|chain| (Some(index), chain)),
            None => self.default_chain.as_ref().map(|chain| (None, chain)),
        }
    }

    /// The runtime of the chain that [`Listener::find_chain`] gave.
    pub fn runtime(&self, chain: &Arc<FilterChain>) -> Option<&ChainRuntime> {
        self.chains.iter().chain(&self.default_chain).find(|runtime| Arc::ptr_eq(&runtime.plan, chain))
    }
}
