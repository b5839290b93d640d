//! Configuration that is asked for when traffic first needs it: virtual hosts (VHDS) and clusters (on-demand CDS).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::route::{RouteConfiguration, VirtualHost};

/// `envoy.filters.http.on_demand`, `TcpProxy.on_demand`: what is waited for, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDemand {
    /// Clusters too, not virtual hosts alone.
    pub clusters: bool,
    pub timeout: Duration,
}

impl OnDemand {
    /// Envoy's default for both filters.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

/// A virtual host that came by itself.
#[derive(Debug, Clone)]
pub struct OnDemandHost {
    /// `<route configuration>/<host>`.
    pub name: Arc<str>,
    pub domains: Vec<Arc<str>>,
    pub host: Arc<VirtualHost>,
    /// Of the encoded resource.
    pub fingerprint: u64,
}

/// Whether requests have used something since it was last asked. One store for the first request of each interval.
#[derive(Debug, Default)]
pub struct Usage(AtomicBool);

impl Usage {
    pub fn touch(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was touched since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl RouteConfiguration {
    /// This configuration with hosts that came by themselves. Where two have one domain, the later has it.
    pub fn with_hosts<'a>(&self, hosts: impl IntoIterator<Item = &'a OnDemandHost>) -> Self {
        let mut all = self.clone();
        for own in hosts {
            for domain in &own.domains {
                // The domains were looked at when the host was taken; what is left to say is that one is there already.
                let _ = all.hosts.insert(domain, own.host.clone());
            }
            all.virtual_hosts.push(own.host.clone());
        }
        all
    }
}
