//! Listeners as one worker serves them: the world's, with what is the worker's own.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};

use meltemi_filters::{ConnectionRate, Context, Direction, Place};
use meltemi_plan::{
    ConnectionFacts, FilterChain, Listener, NetworkFilter,
    listener::{ListenerFilterConfig, TrafficDirection},
};
use meltemi_tls::ServerTls;

use super::LiveTcp;
use crate::{
    hcm::LiveHttp,
    world::{ActiveListener, ChainRuntime, World},
};

pub struct LiveListener {
    pub active: Arc<ActiveListener>,
    pub plan: Arc<Listener>,
    /// In the order of `plan.chains`.
    chains: Vec<Rc<LiveChain>>,
    default_chain: Option<Rc<LiveChain>>,
    /// Of the listener filters, in their order.
    pub rates: Vec<Arc<ConnectionRate>>,
}

/// A filter chain with its connection manager, if it has one.
pub struct LiveChain {
    pub plan: Arc<FilterChain>,
    pub tls: Option<ServerTls>,
    pub http: Option<Rc<LiveHttp>>,
    pub tcp: Rc<LiveTcp>,
}

impl LiveListener {
    pub fn find_chain(&self, facts: &ConnectionFacts<'_>) -> Option<&Rc<LiveChain>> {
        self.plan.matcher.find(facts).and_then(|index| self.chains.get(index)).or(self.default_chain.as_ref())
    }

    /// The chain that [`ActiveListener::choose`] named.
    pub fn chain(&self, index: Option<usize>) -> Option<&Rc<LiveChain>> {
        match index {
            Some(index) => self.chains.get(index),
            None => self.default_chain.as_ref(),
        }
    }

    /// All chains, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &Rc<LiveChain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    fn new(active: &Arc<ActiveListener>, before: Option<&Self>, context: &Arc<Context>) -> Self {
        let direction = direction(&active.plan);
        let live = |chain: &ChainRuntime| {
            // A chain that the update left alone keeps its filters, and with them their counters and buckets.
            let same = before.and_then(|b| b.chains().find(|c| c.plan.fingerprint == chain.plan.fingerprint));
            let http = same.and_then(|c| c.http.clone()).or_else(|| http_of(&chain.plan, direction, context));
            let tcp = same.map(|c| Rc::clone(&c.tcp));
            let tcp = tcp.unwrap_or_else(|| Rc::new(LiveTcp::new(&chain.plan, direction, context)));
            Rc::new(LiveChain { plan: Arc::clone(&chain.plan), tls: chain.tls.clone(), http, tcp })
        };
        let rates = active.plan.listener_filters.iter().filter_map(|filter| match &filter.config {
            ListenerFilterConfig::ConnectionRateLimit(limit) => {
                Some(ConnectionRate::of(limit, Place::Listener, context))
            }
            _ => None,
        });
        Self {
            rates: rates.collect(),
            plan: Arc::clone(&active.plan),
            chains: active.chains.iter().map(live).collect(),
            default_chain: active.default_chain.as_ref().map(live),
            active: Arc::clone(active),
        }
    }
}

fn http_of(chain: &FilterChain, direction: Direction, context: &Arc<Context>) -> Option<Rc<LiveHttp>> {
    chain.filters.iter().find_map(|filter| match filter {
        NetworkFilter::HttpConnectionManager(plan) => Some(Rc::new(LiveHttp::new(plan, direction, context))),
        _ => None,
    })
}

/// Every listener of the world, by name.
#[derive(Default)]
pub struct LiveListeners(BTreeMap<Arc<str>, Rc<LiveListener>>);

impl LiveListeners {
    /// The next world's, sharing what did not change.
    pub fn next(&self, world: &World, context: &Arc<Context>) -> Self {
        let next = |(name, active): (&Arc<str>, &Arc<ActiveListener>)| {
            let before = self.0.get(name);
            let live = match before {
                Some(before) if Arc::ptr_eq(&before.active, active) => Rc::clone(before),
                _ => Rc::new(LiveListener::new(active, before.map(|b| &**b), context)),
            };
            (Arc::clone(name), live)
        };
        Self(world.listeners.iter().map(next).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<LiveListener>> {
        self.0.values()
    }

    /// The listener for a connection whose original destination is `address`: the same address, else the wildcard of its port.
    pub fn at(&self, address: SocketAddr) -> Option<&Rc<LiveListener>> {
        // UDP has an address space of its own.
        let bound = |l: &Rc<LiveListener>| l.plan.address.socket().filter(|_| l.plan.quic.is_none());
        self.iter().find(|l| bound(l) == Some(address)).or_else(|| {
            self.iter().find(|l| bound(l).is_some_and(|a| a.port() == address.port() && a.ip().is_unspecified()))
        })
    }
}

/// Which way a listener's traffic goes, in the filters' terms.
pub fn direction(listener: &Listener) -> Direction {
    match listener.traffic_direction {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    }
}
