//! How a proxy ends: when it is told to, and what is waited for before.
//!
//! A pod with a native sidecar asks for `/drain` when it begins to end; its SIGTERM comes when the application is gone, and
//! nothing is left to wait for. Any other pod's SIGTERM begins the drain. `/quitquitquit`, by which a Job's application ends
//! its proxy, waits for nothing.

use crate::environment::Settings;
use crate::status::ProxyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// Between two looks at the connections that are open.
const LOOK: Duration = Duration::from_secs(1);
/// A proxy that does not tell of its connections is asked this often; as istio-agent.
const ATTEMPTS: u32 = 5;

/// What is waited for between the begin of a drain and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// `terminationDrainDuration`
    For(Duration),
    /// `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`: at least `MINIMUM_DRAIN_DURATION`, then until no client is connected.
    UntilUnused { at_least: Duration },
}

pub struct Termination {
    proxy: Arc<dyn ProxyState>,
    patience: Patience,
    /// Nothing is to be waited for any more.
    is_drained: AtomicBool,
    quit: Notify,
}

impl Termination {
    pub fn new(proxy: Arc<dyn ProxyState>, settings: &Settings) -> Arc<Self> {
        let (patience, is_drained, quit) = (settings.patience, AtomicBool::new(false), Notify::new());
        Arc::new(Self { proxy, patience, is_drained, quit })
    }

    /// Clients are asked to go; those who still come are served until the end.
    pub async fn drain(&self) {
        tracing::info!("the proxy drains");
        self.proxy.drain().await;
        self.is_drained.store(true, Ordering::Relaxed);
    }

    /// Ends the proxy now.
    pub fn quit(&self) {
        tracing::info!("the proxy is told to end");
        self.is_drained.store(true, Ordering::Relaxed);
        self.quit.notify_one();
    }

    /// Resolves when the proxy is to end, some time after `stop` does or at once at [`Termination::quit`].
    pub async fn due(&self, stop: impl Future<Output = ()>) {
        let quit = self.quit.notified();
        tokio::pin!(quit);
        tokio::select! {
            () = &mut quit => return,
            () = stop => {}
        }
        if self.is_drained.load(Ordering::Relaxed) {
            return;
        }
        self.proxy.ending();
        self.drain().await;
        tokio::select! {
            () = quit => {}
            () = self.wait() => {}
        }
    }

    async fn wait(&self) {
        match self.patience {
            Patience::For(duration) => tokio::time::sleep(duration).await,
            Patience::UntilUnused { at_least } => {
                tokio::time::sleep(at_least).await;
                self.until_unused().await;
            }
        }
    }

    async fn until_unused(&self) {
        let mut failures = 0;
        while failures < ATTEMPTS {
            match self.proxy.connections().await {
                Ok(0) => return,
                Ok(count) => {
                    tracing::debug!(count, "clients are connected");
                    failures = 0;
                }
                Err(reason) => {
                    failures += 1;
                    tracing::warn!(reason, "no count of connections");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many clients the listeners of `stats` (Envoy's `/stats`) have, but for the admin's, those on `own_ports`, and those
/// that only other listeners connect to.
pub fn connections(stats: &str, own_ports: &[u16]) -> u64 {
    let of = |line: &str| {
        let (name, count) = line.split_once(':')?;
        let listener = name.strip_prefix("listener.")?.strip_suffix(".downstream_cx_active")?;
        let port = listener.rsplit_once('_').and_then(|(_, port)| port.parse::<u16>().ok());
        let counts = !listener.starts_with("admin")
            && !listener.starts_with("envoy_internal_")
            && !listener.contains("worker_")
            && !port.is_some_and(|port| own_ports.contains(&port));
        count.trim().parse::<u64>().ok().filter(|_| counts)
    };
    stats.lines().filter_map(of).sum()
}
