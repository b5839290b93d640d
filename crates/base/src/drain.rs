//! The end of work in order: those who work are told, and whoever drains waits for them. It sets no deadline; the caller does.

use tokio::sync::{mpsc, watch};

/// Tells everyone who holds a [`DrainWatch`] to finish, and waits until they have.
#[derive(Debug)]
pub struct Drain {
    signal: watch::Sender<bool>,
    done: mpsc::Receiver<()>,
    guard: mpsc::Sender<()>,
}

/// Learns that a drain began. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DrainWatch {
    signal: watch::Receiver<bool>,
    guard: mpsc::Sender<()>,
}

/// Work that a drain waits for; dropping it ends the wait.
#[derive(Debug, Clone)]
pub struct DrainGuard {
    _guard: mpsc::Sender<()>,
}

impl Drain {
    pub fn new() -> (Self, DrainWatch) {
        let (signal, receiver) = watch::channel(false);
        // Nothing is ever sent: the channel closes when the last guard is dropped.
        let (guard, done) = mpsc::channel(1);
        let watch = DrainWatch { signal: receiver, guard: guard.clone() };
        (Self { signal, done, guard }, watch)
    }

    /// Signals the drain and returns when the last watch and guard are dropped.
    pub async fn drain(mut self) {
        self.signal.send_replace(true);
        drop(self.guard);
        while self.done.recv().await.is_some() {}
    }
}

impl DrainWatch {
    /// Returns when the drain begins, and at once if it has begun.
    pub async fn signaled(&mut self) {
        // An error means that the drain itself is gone, which is an end as well.
        let _ = self.signal.wait_for(|draining| *draining).await;
    }

    pub fn is_draining(&self) -> bool {
        *self.signal.borrow()
    }

    pub fn guard(&self) -> DrainGuard {
        DrainGuard { _guard: self.guard.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_when_the_last_guard_is_dropped() {
        let (drain, watch) = Drain::new();
        let guard = watch.guard();
        let mut task_watch = watch.clone();
        drop(watch);
        let worker = tokio::spawn(async move {
            task_watch.signaled().await;
            drop((guard, task_watch));
        });
        drain.drain().await;
        worker.await.unwrap();
    }
}
