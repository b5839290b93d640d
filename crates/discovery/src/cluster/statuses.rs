//! The statuses of the Gateway API's objects, written as they come to be.

use std::collections::BTreeMap;
use std::time::Duration;

use meltemi_config::{Key, Str};
use meltemi_gateway_api::{Settings, Status, statuses, written};
use meltemi_kubernetes::StatusWriter;

use super::followed::Followed;
use crate::State;

/// How soon a change is seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks between two attempts to write what could not be written.
const RETRY: u32 = 10;
/// Looks after which it is seen whether others wrote over it: five minutes.
const AGAIN: u32 = 600;

/// What has been said, and from what.
#[derive(Default)]
struct Said {
    followed: Followed,
    version: Option<u64>,
    settings: Option<Settings>,
    /// Of objects by their uid: one that was made again has no status yet.
    statuses: BTreeMap<Key, (Str, Status)>,
}

impl Said {
    /// Takes over what has changed; true where statuses may differ.
    fn follow(&mut self, state: &State) -> bool {
        let version = state.pusher.snapshot().version;
        let mut differs = self.followed.follow(state);
        // Nodes and pods of gateways are not among what versions count.
        let settings = Some(state.gateway_settings(&self.followed.set));
        differs |= std::mem::replace(&mut self.settings, settings.clone()) != settings;
        self.version.replace(version) != Some(version) || differs
    }

    /// Every status that differs from what has been written.
    fn due(&self, state: &State) -> Vec<(Key, (Str, Status))> {
        let snapshot = state.pusher.snapshot();
        let Some(settings) = &self.settings else { return Vec::new() };
        let now = statuses(&self.followed.catalogue, settings, &*snapshot);
        let uid = |key: &Key| self.followed.set.get(key).map(|object| object.meta.uid.clone());
        let statuses = now.into_iter().filter_map(|(key, status)| {
            let status = (uid(&key)?, status);
            Some((key, status))
        });
        statuses.filter(|(key, status)| self.statuses.get(key) != Some(status)).collect()
    }
}

/// Keeps statuses as they are to be, for as long as it is awaited.
pub(super) async fn keep(state: &State, writer: &StatusWriter) {
    let mut said = Said::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut tick, mut failed) = (0u32, false);
    loop {
        ticks.tick().await;
        tick = tick.wrapping_add(1);
        let again = tick.is_multiple_of(AGAIN);
        if again {
            said.statuses.clear();
        }
        let due = said.follow(state) || again || failed && tick.is_multiple_of(RETRY);
        if !due {
            continue;
        }
        failed = false;
        for (key, status) in said.due(state) {
            match writer.write(&key, |before, now| written(before, &status.1, &key.namespace, now)).await {
                Ok(is_new) => {
                    if is_new {
                        tracing::debug!(object = %key, "status written");
                    }
                    said.statuses.insert(key, status);
                }
                Err(reason) => {
                    tracing::warn!(object = %key, "status not written: {reason}");
                    failed = true;
                }
            }
        }
        let set = said.followed.set.clone();
        said.statuses.retain(|key, _| set.get(key).is_some());
    }
}
