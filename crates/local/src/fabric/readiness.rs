//! When discovery may be asked.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use crate::address::FABRIC;
use crate::pod::accepts;

/// Tells once discovery accepts, so that no proxy starts by waiting out a failed attempt.
pub(crate) async fn of_discovery(accepting: watch::Sender<bool>) {
    let address = SocketAddr::from((FABRIC, super::DISCOVERY_PORT));
    while !accepts(address).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accepting.send_replace(true);
    // The sender must outlive the readers, who take its end for a yes.
    accepting.closed().await;
}
