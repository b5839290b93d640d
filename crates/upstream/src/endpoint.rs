//! One upstream host. What is configured is immutable; what happens to it lives in a [`HostState`] that survives updates.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use meltemi_net::Address;
use meltemi_plan::anomaly::Record;
use meltemi_plan::{Locality, Metadata};

use crate::latency::Latency;
use crate::outlier;

/// Why a host is not to be used; bits of [`HostState::health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Active health checking failed.
    ActiveCheck = 1,
    /// Outlier detection ejected it.
    Outlier = 2,
    /// The control plane says unhealthy, draining or timed out.
    Eds = 4,
    /// The control plane says degraded.
    EdsDegraded = 8,
    /// Active checking says degraded.
    CheckDegraded = 16,
    /// Not checked yet.
    PendingCheck = 32,
    /// In no list of the control plane any more, kept until its check fails.
    Removed = 64,
    /// The control plane says draining: unhealthy, and left out of every percentage.
    Draining = 128,
}

impl Fault {
    /// Envoy's names in `/clusters`.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::ActiveCheck, "failed_active_hc"),
        (Self::Outlier, "failed_outlier_check"),
        (Self::Eds, "failed_eds_health"),
        (Self::EdsDegraded, "degraded_eds_health"),
        (Self::CheckDegraded, "degraded_active_hc"),
        (Self::PendingCheck, "pending_active_hc"),
        (Self::Removed, "pending_dynamic_removal"),
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    Degraded,
    Unhealthy,
}

/// Counters of one host, as `/clusters` shows them.
#[derive(Debug, Default)]
pub struct HostStats {
    pub cx_total: AtomicU64,
    pub cx_active: AtomicU32,
    pub cx_connect_fail: AtomicU64,
    pub rq_total: AtomicU64,
    pub rq_success: AtomicU64,
    pub rq_error: AtomicU64,
    pub rq_timeout: AtomicU64,
    pub rq_active: AtomicU32,
}

impl HostStats {
    pub(crate) fn count(&self, outcome: outlier::Outcome) {
        use outlier::Outcome;
        let counter = match outcome {
            Outcome::Status(status) if status < 500 => &self.rq_success,
            Outcome::Status(_) | Outcome::Reset => &self.rq_error,
            Outcome::Timeout => &self.rq_timeout,
            Outcome::ConnectFailed | Outcome::ConnectTimeout => &self.cx_connect_fail,
            Outcome::Connected => return,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// What happens to a host, shared by every version of its [`Endpoint`].
#[derive(Debug)]
pub struct HostState {
    /// When the host became a member.
    pub since: Instant,
    health: AtomicU8,
    pub stats: HostStats,
    pub outlier: outlier::Monitor,
    /// Only of clusters with the peak-EWMA balancer.
    pub latency: Latency,
    /// Only of clusters that are watched for anomalies, from the first request on.
    record: OnceLock<Box<Record>>,
    /// A first active check has an answer.
    pub checked: AtomicBool,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            health: AtomicU8::new(0),
            stats: HostStats::default(),
            outlier: outlier::Monitor::default(),
            latency: Latency::default(),
            record: OnceLock::new(),
            checked: AtomicBool::new(false),
        }
    }
}

impl HostState {
    /// Returns whether the bit changed.
    pub fn set(&self, fault: Fault, on: bool) -> bool {
        let bit = fault as u8;
        let before = if on { self.health.fetch_or(bit, Relaxed) } else { self.health.fetch_and(!bit, Relaxed) };
        (before & bit != 0) != on
    }

    /// What anomaly detection counts.
    pub(crate) fn record(&self) -> &Record {
        self.record.get_or_init(Box::default)
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.health.load(Relaxed) & fault as u8 != 0
    }

    pub fn health(&self) -> Health {
        const FAILED: u8 = Fault::ActiveCheck as u8 | Fault::Outlier as u8 | Fault::Eds as u8;
        const DEGRADED: u8 = Fault::EdsDegraded as u8 | Fault::CheckDegraded as u8;
        match self.health.load(Relaxed) {
            bits if bits & FAILED != 0 => Health::Unhealthy,
            bits if bits & DEGRADED != 0 => Health::Degraded,
            _ => Health::Healthy,
        }
    }

    /// `/failed_active_hc/failed_outlier_check`, or `healthy`.
    pub fn health_text(&self) -> String {
        let names: Vec<&str> = Fault::NAMES.iter().filter(|(f, _)| self.has(*f)).map(|(_, n)| *n).collect();
        if names.is_empty() { "healthy".to_owned() } else { format!("/{}", names.join("/")) }
    }
}

/// How active checks treat a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Where they go if not to its address.
    pub address: Option<Address>,
    /// The host name they send.
    pub hostname: Arc<str>,
    pub disabled: bool,
}

/// One host of a cluster.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in the process; the same as long as address and hostname stay, so that pools survive updates.
    pub id: u64,
    pub address: Address,
    pub hostname: Arc<str>,
    pub locality: Arc<Locality>,
    pub metadata: Option<Arc<Metadata>>,
    pub weight: u32,
    pub priority: u32,
    /// Which of the cluster's transports to use.
    pub transport: u16,
    /// `None`: as [`Check::default`] says.
    pub check: Option<Box<Check>>,
    pub state: Arc<HostState>,
}

impl Endpoint {
    /// An id that no other endpoint has.
    pub fn next_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Relaxed)
    }

    /// A host of weight 1 without metadata.
    pub fn bare(address: Address) -> Self {
        Self {
            id: Self::next_id(),
            address,
            hostname: Arc::from(""),
            locality: Arc::default(),
            metadata: None,
            weight: 1,
            priority: 0,
            transport: 0,
            check: None,
            state: Arc::default(),
        }
    }

    pub fn health(&self) -> Health {
        self.state.health()
    }

    /// Whether active checks leave this host alone.
    pub fn is_unchecked(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.disabled)
    }

    /// The host name that active checks send; empty: the check's own.
    pub fn check_hostname(&self) -> &str {
        self.check.as_ref().map_or("", |check| &check.hostname)
    }

    pub fn active_requests(&self) -> u32 {
        self.state.stats.rq_active.load(Relaxed)
    }

    /// Counts a request as active until the guard drops.
    pub fn begin_request(&self) -> ActiveRequest {
        self.state.stats.rq_total.fetch_add(1, Relaxed);
        self.state.stats.rq_active.fetch_add(1, Relaxed);
        ActiveRequest(self.state.clone())
    }

    /// Counts a connection as active until the guard drops.
    pub fn begin_connection(&self) -> ActiveConnection {
        self.state.stats.cx_total.fetch_add(1, Relaxed);
        self.state.stats.cx_active.fetch_add(1, Relaxed);
        ActiveConnection(self.state.clone())
    }
}

/// A request in flight on a host.
#[derive(Debug)]
pub struct ActiveRequest(Arc<HostState>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.stats.rq_active.fetch_sub(1, Relaxed);
    }
}

/// A connection open to a host.
#[derive(Debug)]
pub struct ActiveConnection(Arc<HostState>);

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.stats.cx_active.fetch_sub(1, Relaxed);
    }
}
