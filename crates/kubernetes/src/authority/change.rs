//! One replica's part in the change of the self-signed root that all share: what the Secret is to say next.
//!
//! Owns the notes by which replicas hear of each other: whoever has proxies that lack the next root says so in an annotation,
//! again and again, and the leader has the next root sign once nobody does. Clocks of machines are not compared: how long a note
//! has rested is measured here. Reads and writes nothing.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use meltemi_ca::{Authority, Files, NEXT_CERTIFICATE};
use tokio::time::Instant;

use super::files;

/// Who still waits: replicas by name, each with a number that grows.
const AWAITED_BY: &str = "meltemi.io/next-root-awaited-by";
/// How often a replica that waits says so.
const SAY_EVERY: Duration = Duration::from_secs(20);
/// Whoever has not said it again since is gone.
const GONE: Duration = Duration::from_secs(75);
/// In which other replicas hear of a new root and say that they wait.
const HEARING: Duration = Duration::from_secs(5);
/// Replicas whose notes are kept.
const MOST: usize = 64;

type Notes = BTreeMap<String, u64>;

pub(super) struct Change {
    identity: String,
    /// Notes of others as they were last seen to change.
    seen: BTreeMap<String, (u64, Instant)>,
    /// Since when there is a next root.
    next: Option<Instant>,
    said: Option<Instant>,
}

impl Change {
    pub fn new(identity: &str) -> Self {
        Self { identity: identity.to_owned(), seen: BTreeMap::new(), next: None, said: None }
    }

    /// What is to be written in place of this Secret, if anything is.
    pub fn turn(
        &mut self,
        secret: &Secret,
        authority: &Authority,
        (leads, now): (bool, Instant),
    ) -> Result<Option<Secret>> {
        let kept = files(secret);
        let mut notes = notes(secret);
        self.listen(&notes, kept.contains_key(NEXT_CERTIFICATE), now);
        let awaits = authority.awaits(&kept);
        if awaits && self.said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY) {
            let said = notes.get(&self.identity).map_or(0, |number| number.wrapping_add(1));
            let room = notes.len() < MOST || notes.contains_key(&self.identity);
            self.said = Some(now);
            if room {
                notes.insert(self.identity.clone(), said);
                return Ok(Some(noted(secret.clone(), &notes)));
            }
        }
        if !awaits && notes.remove(&self.identity).is_some() {
            self.said = None;
            return Ok(Some(noted(secret.clone(), &notes)));
        }
        if !leads {
            return Ok(None);
        }
        let step = authority.shared_step(&kept, SystemTime::now(), self.is_awaited(now))?;
        Ok(step.map(|files| noted(holding(secret.clone(), files), &Notes::new())))
    }

    fn listen(&mut self, notes: &Notes, is_changing: bool, now: Instant) {
        self.next = is_changing.then(|| self.next.unwrap_or(now));
        self.seen.retain(|name, _| notes.contains_key(name));
        for (name, number) in notes.iter().filter(|(name, _)| **name != self.identity) {
            if self.seen.get(name).is_none_or(|(known, _)| known != number) {
                self.seen.insert(name.clone(), (*number, now));
            }
        }
    }

    fn is_awaited(&self, now: Instant) -> bool {
        let fresh = |since: &Instant| now.duration_since(*since) < GONE;
        self.next.is_some_and(|since| now.duration_since(since) < HEARING)
            || self.seen.values().any(|(_, since)| fresh(since))
    }
}

fn notes(secret: &Secret) -> Notes {
    let annotations = secret.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(AWAITED_BY));
    // Whoever wrote something else there made no note.
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn noted(mut secret: Secret, notes: &Notes) -> Secret {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    if notes.is_empty() {
        annotations.remove(AWAITED_BY);
    } else {
        annotations.insert(AWAITED_BY.to_owned(), serde_json::json!(notes).to_string());
    }
    secret
}

fn holding(mut secret: Secret, files: Files) -> Secret {
    secret.data = Some(files.into_iter().map(|(name, bytes)| (name, ByteString(bytes.to_vec()))).collect());
    secret
}
