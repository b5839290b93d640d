//! When the steps of a PeerAuthentication that turns mTLS on or off are due: each once proxies have the last one.
//!
//! Proxies say what they have taken by their acknowledgements; a proxy that does not answer holds nobody up for long. Costs nothing
//! while nothing changes.

use std::sync::Arc;
use std::time::Duration;

use meltemi_model::MigrationStep;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::State;

/// At least so long, since a proxy acknowledges before the last of its workers has changed, and connections are under way.
const PAUSE: Duration = Duration::from_secs(1);
/// At most so long.
const LONGEST: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A step of the change that was the so manieth to begin.
pub(crate) type Due = (u64, MigrationStep);

/// Sends steps until nobody takes them. Whatever begins anew begins with the first.
pub(crate) async fn run(state: Arc<State>, mut begun: watch::Receiver<u64>, due: mpsc::Sender<Due>) {
    while begun.changed().await.is_ok() {
        let mut steps = [MigrationStep::ClientsFollow, MigrationStep::End].into_iter();
        let mut next = steps.next();
        while let Some(step) = next {
            tokio::select! {
                () = taken(&state) => {}
                changed = begun.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    steps = [MigrationStep::ClientsFollow, MigrationStep::End].into_iter();
                    next = steps.next();
                    continue;
                }
            }
            let number = *begun.borrow_and_update();
            if due.send((number, step)).await.is_err() {
                return;
            }
            next = steps.next();
        }
    }
}

/// Waits until proxies have what was last pushed.
async fn taken(state: &State) {
    let end = Instant::now() + LONGEST;
    tokio::time::sleep(PAUSE).await;
    let waits = || state.pusher.clients().iter().any(|client| client.types.values().any(|status| status.outstanding));
    while waits() && Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
