//! How many connections may be open, and the statistics of listeners.
//!
//! Owns the counts that all workers share: of the process, of each listener and, where that is limited, of each source
//! address. What comes beyond a limit is closed at once, as Envoy does. Taking a seat costs two atomic additions and, with a
//! limit for each source, a short lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use meltemi_plan::Listener;
use meltemi_plan::bootstrap::ConnectionLimits;
use meltemi_telemetry::metrics::Scope;
use meltemi_telemetry::{Registry, Spec, stats};
use parking_lot::Mutex;

stats! {
    /// Under `listener.<address>.`, as Envoy names them.
    struct ListenerStats {
        downstream_cx_total: Spec::counter("downstream_cx_total"),
        downstream_cx_active: Spec::gauge("downstream_cx_active"),
        downstream_cx_destroy: Spec::counter("downstream_cx_destroy"),
        downstream_cx_overflow: Spec::counter("downstream_cx_overflow"),
        downstream_global_cx_overflow: Spec::counter("downstream_global_cx_overflow"),
        downstream_cx_source_overflow: Spec::counter("downstream_cx_source_overflow"),
        downstream_pre_cx_timeout: Spec::counter("downstream_pre_cx_timeout"),
        no_filter_chain_match: Spec::counter("no_filter_chain_match"),
        connection_error: Spec::counter("ssl.connection_error"),
    }
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    InspectionTimeout,
    NoChain,
    Handshake,
}

/// The limits of a process, and how far they are taken.
pub struct Limits {
    plan: ConnectionLimits,
    open: AtomicU64,
    listeners: Mutex<HashMap<Arc<str>, Weak<Gate>>>,
    registry: Registry,
}

impl Limits {
    pub fn new(plan: ConnectionLimits, registry: &Registry) -> Arc<Self> {
        Arc::new(Self { plan, open: AtomicU64::new(0), listeners: Mutex::default(), registry: registry.clone() })
    }

    /// The gate of a listener, the same one for whoever asks while it lives.
    pub(super) fn gate(self: &Arc<Self>, listener: &Listener) -> Arc<Gate> {
        let mut listeners = self.listeners.lock();
        if let Some(gate) = listeners.get(&listener.name).and_then(Weak::upgrade) {
            return gate;
        }
        listeners.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate {
            most: self.plan.listeners.get(&listener.name).copied().unwrap_or(u64::MAX),
            open: AtomicU64::new(0),
            sources: Mutex::default(),
            stats: ListenerStats::new(&self.registry, scope(listener)),
            limits: Arc::clone(self),
        });
        listeners.insert(Arc::clone(&listener.name), Arc::downgrade(&gate));
        gate
    }
}

fn scope(listener: &Listener) -> Scope {
    // What a statistic's name is made of has no colons.
    Scope::envoy("listener", "envoy_listener_address", &listener.stat_prefix.replace(':', "_"))
}

/// A listener's way in.
pub(super) struct Gate {
    limits: Arc<Limits>,
    most: u64,
    open: AtomicU64,
    sources: Mutex<HashMap<IpAddr, u64>>,
    stats: ListenerStats,
}

impl Gate {
    /// Lets a connection in, unless a limit is reached. `counted`: it counts for the limit of the process.
    pub fn enter(self: &Arc<Self>, source: Option<IpAddr>, counted: bool) -> Option<Seat> {
        let plan = &self.limits.plan;
        let mut share = Share { gate: Arc::clone(self), counted: false, source: None };
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.stats.downstream_cx_overflow().inc();
            return None;
        }
        if counted {
            share.counted = true;
            if self.limits.open.fetch_add(1, Ordering::Relaxed) >= plan.total.unwrap_or(u64::MAX) {
                self.stats.downstream_global_cx_overflow().inc();
                return None;
            }
        }
        if let (Some(most), Some(source)) = (plan.per_source, source) {
            if !self.admits_from(source, most) {
                self.stats.downstream_cx_source_overflow().inc();
                return None;
            }
            share.source = Some(source);
        }
        self.stats.downstream_cx_total().inc();
        self.stats.downstream_cx_active().inc();
        Some(Seat(share))
    }

    fn admits_from(&self, source: IpAddr, most: u64) -> bool {
        let mut sources = self.sources.lock();
        match sources.get_mut(&source) {
            Some(open) if *open >= most => return false,
            Some(open) => *open += 1,
            None if most == 0 => return false,
            None => drop(sources.insert(source, 1)),
        }
        true
    }
}

/// What a connection takes of the limits, as far as it came; given back on drop.
struct Share {
    gate: Arc<Gate>,
    counted: bool,
    source: Option<IpAddr>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        if self.counted {
            self.gate.limits.open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(source) = self.source
            && let Entry::Occupied(mut open) = self.gate.sources.lock().entry(source)
        {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// The place of an open connection within the limits.
pub struct Seat(Share);

impl Seat {
    /// Counts why the connection ends before it is served.
    pub fn fails(&self, failure: Failure) {
        let stats = &self.0.gate.stats;
        match failure {
            Failure::InspectionTimeout => stats.downstream_pre_cx_timeout().inc(),
            Failure::NoChain => stats.no_filter_chain_match().inc(),
            Failure::Handshake => stats.connection_error().inc(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let stats = &self.0.gate.stats;
        stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
    }
}

#[cfg(test)]
mod tests;
