//! What traffic is the first to need: the way of a question from a worker to the main thread, and of the answer back.
//!
//! Owns no configuration. A question is answered with the world in which the thing is there or known not to exist; who waits
//! goes on with that world, since its own worker may not have taken it yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::world::World;

/// Questions on their way to the main thread, of all workers.
const MAX_QUESTIONS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A virtual host, `<route configuration>/<host>`.
    Host(Arc<str>),
    Cluster(Arc<str>),
}

#[derive(Debug)]
pub struct Question {
    need: Need,
    answer: oneshot::Sender<Arc<World>>,
}

/// A worker's end.
#[derive(Clone, Debug)]
pub struct Demand(mpsc::Sender<Question>);

/// Both ends.
pub fn channel() -> (Demand, mpsc::Receiver<Question>) {
    let (sender, receiver) = mpsc::channel(MAX_QUESTIONS);
    (Demand(sender), receiver)
}

impl Demand {
    /// The world in which the need is met or known to stay unmet; `None` if that takes longer than `limit`, or too many ask.
    pub async fn ask(&self, need: Need, limit: Duration) -> Option<Arc<World>> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Question { need, answer }).ok()?;
        tokio::time::timeout(limit, answered).await.ok()?.ok()
    }
}

/// The main thread's: who waits for what.
#[derive(Debug, Default)]
pub struct Waiting(BTreeMap<Need, Vec<oneshot::Sender<Arc<World>>>>);

impl Waiting {
    /// Takes a question; gives what it asks for.
    pub fn add(&mut self, question: Question) -> Need {
        let Question { need, answer } = question;
        let waiting = self.0.entry(need.clone()).or_default();
        // Those who gave up meanwhile.
        waiting.retain(|answer| !answer.is_closed());
        waiting.push(answer);
        need
    }

    /// Tells whoever waits for something that `is_met` says is so.
    pub fn answer(&mut self, world: &Arc<World>, is_met: impl Fn(&Need) -> bool) {
        self.0.retain(|need, waiting| {
            let met = is_met(need);
            if met {
                waiting.drain(..).for_each(|answer| drop(answer.send(world.clone())));
            }
            waiting.retain(|answer| !answer.is_closed());
            !waiting.is_empty()
        });
    }

    /// Nobody will be told: too much is asked for already.
    pub fn refuse(&mut self, need: &Need) {
        self.0.remove(need);
    }
}
