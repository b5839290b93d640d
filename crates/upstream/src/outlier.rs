//! Passive health: hosts that answer badly are ejected for a while, as Envoy's outlier detection does.
//!
//! Workers report outcomes with a few relaxed atomics a response; only a host that reaches a threshold takes the detector's
//! lock. The interval sweep (success rate, failure percentage, un-ejection) runs on the main thread. Time is given, never read.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use meltemi_plan::cluster::OutlierDetection;
use parking_lot::Mutex;
use rand::Rng;

use crate::endpoint::{Endpoint, Fault};
use crate::stats::OutlierStats;

/// What became of a request or connection, as far as the host is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this status (a gRPC status mapped to HTTP).
    Status(u16),
    /// A TCP connection was made and that is all there is to know.
    Connected,
    ConnectFailed,
    ConnectTimeout,
    /// A response did not come in time.
    Timeout,
    /// The connection broke before a response.
    Reset,
}

impl Outcome {
    /// The host did not do what was asked of it.
    pub(crate) fn is_failure(self) -> bool {
        match self {
            Self::Status(status) => status >= 500,
            Self::Connected => false,
            Self::ConnectFailed | Self::ConnectTimeout | Self::Timeout | Self::Reset => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Consecutive5xx,
    GatewayFailure,
    LocalOrigin,
    SuccessRate,
    FailurePercentage,
}

/// One host's record.
#[derive(Debug, Default)]
pub struct Monitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// Of the running interval.
    requests: AtomicU32,
    successes: AtomicU32,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    since: Option<Instant>,
    jitter: Duration,
    /// Multiplies the base time; falls by one each interval that the host stays in.
    backoff: u32,
    total: u32,
}

impl Monitor {
    pub fn is_ejected(&self) -> bool {
        self.ejection.lock().since.is_some()
    }

    pub fn ejections(&self) -> u32 {
        self.ejection.lock().total
    }

    fn reset_counts(&self) {
        for counter in [&self.consecutive_5xx, &self.consecutive_gateway, &self.consecutive_local] {
            counter.store(0, Relaxed);
        }
    }
}

/// A cluster's detector.
#[derive(Debug)]
pub struct Detector {
    pub config: Arc<OutlierDetection>,
    pub(crate) stats: OutlierStats,
    /// Serialises ejections, so that the percentage is exact.
    active: Mutex<u32>,
}

impl Detector {
    pub fn new(config: Arc<OutlierDetection>, stats: OutlierStats) -> Self {
        Self { config, stats, active: Mutex::new(0) }
    }

    /// Records an outcome. True when the host was ejected just now, so that the cluster must rebuild its set. `hosts` is
    /// how many the cluster has.
    pub fn report(&self, host: &Endpoint, outcome: Outcome, hosts: usize, now: Instant) -> bool {
        match self.cause(&host.state.outlier, outcome) {
            Some(cause) => self.detected(host, cause, hosts, now),
            None => false,
        }
    }

    /// Without split errors, a failure of our own making counts as the status the client would see.
    fn cause(&self, monitor: &Monitor, outcome: Outcome) -> Option<Cause> {
        let split = self.config.split_external_local_origin_errors;
        match (outcome, split) {
            (Outcome::Status(status), _) => self.status(monitor, status),
            (Outcome::Connected, true) => {
                monitor.consecutive_local.store(0, Relaxed);
                None
            }
            (Outcome::Connected, false) => self.status(monitor, 200),
            (_, true) => {
                let count = monitor.consecutive_local.fetch_add(1, Relaxed) + 1;
                (count == self.config.consecutive_local_origin_failure).then_some(Cause::LocalOrigin)
            }
            (Outcome::ConnectFailed | Outcome::Reset, false) => self.status(monitor, 503),
            (Outcome::ConnectTimeout | Outcome::Timeout, false) => self.status(monitor, 504),
        }
    }

    fn status(&self, monitor: &Monitor, status: u16) -> Option<Cause> {
        monitor.requests.fetch_add(1, Relaxed);
        if status < 500 {
            monitor.successes.fetch_add(1, Relaxed);
            if monitor.consecutive_5xx.load(Relaxed) | monitor.consecutive_gateway.load(Relaxed) != 0 {
                monitor.consecutive_5xx.store(0, Relaxed);
                monitor.consecutive_gateway.store(0, Relaxed);
            }
            // The host answered, so the connection was fine.
            monitor.consecutive_local.store(0, Relaxed);
            return None;
        }
        let mut cause = None;
        if matches!(status, 502..=504) {
            let count = monitor.consecutive_gateway.fetch_add(1, Relaxed) + 1;
            if count == self.config.consecutive_gateway_failure {
                cause = Some(Cause::GatewayFailure);
            }
        } else {
            monitor.consecutive_gateway.store(0, Relaxed);
        }
        let count = monitor.consecutive_5xx.fetch_add(1, Relaxed) + 1;
        let reached = count == self.config.consecutive_5xx;
        // When both are reached at once, the one that is enforced speaks.
        match (cause, reached) {
            (Some(_), true) if self.config.enforcing_consecutive_gateway_failure == 0 => {
                self.stats.ejections_detected_consecutive_gateway_failure().inc();
                monitor.consecutive_gateway.store(0, Relaxed);
                Some(Cause::Consecutive5xx)
            }
            (None, true) => Some(Cause::Consecutive5xx),
            (cause, _) => cause,
        }
    }

    fn detected(&self, host: &Endpoint, cause: Cause, hosts: usize, now: Instant) -> bool {
        let monitor = &host.state.outlier;
        let (detected, enforced, enforcement) = match cause {
            Cause::Consecutive5xx => {
                monitor.consecutive_5xx.store(0, Relaxed);
                (
                    self.stats.ejections_detected_consecutive_5xx(),
                    self.stats.ejections_enforced_consecutive_5xx(),
                    self.config.enforcing_consecutive_5xx,
                )
            }
            Cause::GatewayFailure => {
                monitor.consecutive_gateway.store(0, Relaxed);
                (
                    self.stats.ejections_detected_consecutive_gateway_failure(),
                    self.stats.ejections_enforced_consecutive_gateway_failure(),
                    self.config.enforcing_consecutive_gateway_failure,
                )
            }
            Cause::LocalOrigin => {
                monitor.consecutive_local.store(0, Relaxed);
                (
                    self.stats.ejections_detected_consecutive_local_origin_failure(),
                    self.stats.ejections_enforced_consecutive_local_origin_failure(),
                    self.config.enforcing_consecutive_local_origin_failure,
                )
            }
            Cause::SuccessRate => (
                self.stats.ejections_detected_success_rate(),
                self.stats.ejections_enforced_success_rate(),
                self.config.enforcing_success_rate,
            ),
            Cause::FailurePercentage => (
                self.stats.ejections_detected_failure_percentage(),
                self.stats.ejections_enforced_failure_percentage(),
                self.config.enforcing_failure_percentage,
            ),
        };
        detected.inc();
        let enforce = rand::rng().next_u32() % 100 < enforcement;
        let ejected = enforce && self.eject(host, hosts, now);
        if ejected {
            enforced.inc();
        }
        ejected
    }

    /// Ejects a host if the limits allow.
    pub(crate) fn eject(&self, host: &Endpoint, hosts: usize, now: Instant) -> bool {
        let mut active = self.active.lock();
        let mut ejection = host.state.outlier.ejection.lock();
        if ejection.since.is_some() {
            return false;
        }
        let percent = 100.0 * f64::from(*active + 1) / hosts.max(1) as f64;
        let fits = percent <= f64::from(self.config.max_ejection_percent.min(100));
        let first = self.config.always_eject_one_host && *active == 0;
        if !(fits || first) {
            self.stats.ejections_overflow().inc();
            return false;
        }
        let jitter = self.config.max_ejection_time_jitter.as_millis() as u64;
        ejection.since = Some(now);
        ejection.jitter = Duration::from_millis(if jitter == 0 { 0 } else { rand::rng().next_u64() % (jitter + 1) });
        ejection.backoff += 1;
        ejection.total += 1;
        *active += 1;
        host.state.set(Fault::Outlier, true);
        self.stats.ejections_active().inc();
        self.stats.ejections_enforced_total().inc();
        true
    }

    /// Brings a host back, as the sweep does and a passing active check may.
    pub fn uneject(&self, host: &Endpoint) -> bool {
        let mut active = self.active.lock();
        let was_ejected = host.state.outlier.ejection.lock().since.take().is_some();
        if was_ejected {
            *active = active.saturating_sub(1);
            self.stats.ejections_active().dec();
            host.state.set(Fault::Outlier, false);
            host.state.outlier.reset_counts();
        }
        was_ejected
    }

    /// Counts a host that another detector, of the cluster's previous version, ejected.
    pub fn adopt(&self, host: &Endpoint) {
        if host.state.outlier.is_ejected() {
            *self.active.lock() += 1;
        }
    }

    /// A host left the cluster: its ejection no longer counts.
    pub fn forget(&self, host: &Endpoint) {
        self.uneject(host);
    }

    /// The interval's work. True when some host's health changed.
    pub fn sweep(&self, hosts: &[Arc<Endpoint>], now: Instant) -> bool {
        let mut changed = false;
        for host in hosts {
            changed |= self.check_uneject(host, now);
        }
        let rates: Vec<(&Arc<Endpoint>, u32, f64)> = hosts
            .iter()
            .filter_map(|host| {
                let monitor = &host.state.outlier;
                let (requests, successes) = (monitor.requests.swap(0, Relaxed), monitor.successes.swap(0, Relaxed));
                (requests > 0 && !monitor.is_ejected())
                    .then(|| (host, requests, 100.0 * f64::from(successes) / f64::from(requests)))
            })
            .collect();
        changed |= self.by_success_rate(&rates, hosts.len(), now);
        changed | self.by_failure_percentage(&rates, hosts.len(), now)
    }

    fn check_uneject(&self, host: &Endpoint, now: Instant) -> bool {
        let mut ejection = host.state.outlier.ejection.lock();
        let Some(since) = ejection.since else {
            ejection.backoff = ejection.backoff.saturating_sub(1);
            return false;
        };
        let longest = self.config.max_ejection_time.max(self.config.base_ejection_time);
        let time = self.config.base_ejection_time.saturating_mul(ejection.backoff).min(longest) + ejection.jitter;
        drop(ejection);
        now.duration_since(since) >= time && self.uneject(host)
    }

    /// Below the mean by so many standard deviations.
    fn by_success_rate(&self, rates: &[(&Arc<Endpoint>, u32, f64)], hosts: usize, now: Instant) -> bool {
        let valid: Vec<_> = rates.iter().filter(|r| r.1 >= self.config.success_rate_request_volume).collect();
        if valid.is_empty() || valid.len() < self.config.success_rate_minimum_hosts as usize {
            return false;
        }
        let count = valid.len() as f64;
        let mean = valid.iter().map(|r| r.2).sum::<f64>() / count;
        let variance = valid.iter().map(|r| (r.2 - mean).powi(2)).sum::<f64>() / count;
        let threshold = mean - variance.sqrt() * f64::from(self.config.success_rate_stdev_factor) / 1000.0;
        let outliers = valid.iter().filter(|r| r.2 < threshold);
        outliers.fold(false, |changed, r| self.detected(r.0, Cause::SuccessRate, hosts, now) | changed)
    }

    fn by_failure_percentage(&self, rates: &[(&Arc<Endpoint>, u32, f64)], hosts: usize, now: Instant) -> bool {
        let valid: Vec<_> = rates.iter().filter(|r| r.1 >= self.config.failure_percentage_request_volume).collect();
        if valid.is_empty() || valid.len() < self.config.failure_percentage_minimum_hosts as usize {
            return false;
        }
        let threshold = f64::from(self.config.failure_percentage_threshold);
        let outliers = valid.iter().filter(|r| 100.0 - r.2 >= threshold);
        outliers.fold(false, |changed, r| self.detected(r.0, Cause::FailurePercentage, hosts, now) | changed)
    }
}
