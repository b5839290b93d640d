//! Which of several replicas writes: the one that holds a Lease (`coordination.k8s.io/v1`), renewed while it lives.
//!
//! Owns when leadership begins and when it is over. A holder that could not renew gives up before others may take the Lease,
//! and one that ends lets go of it. Clocks of machines are not compared: how long a Lease rests is measured here.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::error::{is_conflict, is_not_found, reason};

/// client-go's pace.
const LEASE_SECONDS: i32 = 15;
const LEASE: Duration = Duration::from_secs(15);
const GIVE_UP: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(2);

/// One replica's part in an election.
#[derive(Clone)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as it was last seen to change, and when.
    seen: Option<(LeaseSpec, Instant)>,
}

/// What came of a look at the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ours,
    Others,
}

/// Whether a Lease may be taken, by what it says and how long it has said so.
fn is_free(spec: &LeaseSpec, rested: Duration, identity: &str) -> bool {
    match spec.holder_identity.as_deref() {
        None | Some("") => true,
        Some(holder) if holder == identity => true,
        Some(_) => rested >= LEASE,
    }
}

/// What the Lease is to say: a new holder starts anew, the old one goes on.
fn claim(before: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let same = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let changes = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        acquire_time: before.filter(|_| same).and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if same || before.is_none() { changes } else { changes.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

impl Election {
    /// `replica` is the name of this one, to which something of its own is added: names may be given twice.
    pub fn new(client: Client, namespace: &str, name: &str, replica: &str) -> Self {
        let own = RandomState::new().build_hasher().finish();
        let identity = format!("{replica}_{own:016x}");
        Self { leases: Api::namespaced(client, namespace), name: name.to_owned(), identity, seen: None }
    }

    /// What this replica is called in the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes part until `stop` is done, then lets go.
    pub async fn run(mut self, leading: watch::Sender<bool>, stop: impl Future<Output = ()>) {
        let mut told = String::new();
        let taking_part = async {
            let mut held: Option<Instant> = None;
            loop {
                let began = Instant::now();
                match timeout(GIVE_UP / 2, self.turn()).await {
                    Ok(Ok(Turn::Ours)) => held = Some(began),
                    Ok(Ok(Turn::Others)) => held = None,
                    Ok(Err(error)) => say(&mut told, reason(&error)),
                    Err(_) => say(&mut told, "no answer in time".to_owned()),
                }
                let leads = held.is_some_and(|held| held.elapsed() < GIVE_UP);
                if leading.send_if_modified(|known| std::mem::replace(known, leads) != leads) {
                    tracing::info!(lease = self.name, leads, "leadership");
                }
                // A holder that gets no answer must not lead for longer than it may.
                let give_up = held.filter(|_| leads).map_or(RENEW, |held| GIVE_UP.saturating_sub(held.elapsed()));
                tokio::time::sleep(RENEW.min(give_up)).await;
            }
        };
        tokio::select! {
            () = taking_part => {}
            () = stop => {}
        }
        if leading.send_replace(false)
            && let Ok(Err(error)) = timeout(GIVE_UP, self.release()).await
        {
            tracing::debug!(lease = self.name, "not let go: {}", reason(&error));
        }
    }

    /// Takes the Lease or renews it, where that is ours to do.
    async fn turn(&mut self) -> kube::Result<Turn> {
        let now = Timestamp::now();
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(claim(None, &self.identity, now)) };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let rested = match &self.seen {
            Some((seen, since)) if *seen == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                Duration::ZERO
            }
        };
        if !is_free(&spec, rested, &self.identity) {
            return Ok(Turn::Others);
        }
        lease.spec = Some(claim(Some(&spec), &self.identity, now));
        // With the version that was read: whoever wrote in between wins.
        won(self.leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    async fn release(&self) -> kube::Result<()> {
        let mut lease = self.leases.get(&self.name).await?;
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        else {
            return Ok(());
        };
        spec.holder_identity = None;
        self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}

fn won(written: kube::Result<Lease>) -> kube::Result<Turn> {
    match written {
        Ok(_) => Ok(Turn::Ours),
        Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(Turn::Others),
        Err(error) => Err(error),
    }
}

fn say(told: &mut String, reason: String) {
    if *told != reason {
        tracing::warn!("the lease of the leader: {reason}");
        *told = reason;
    }
}

#[cfg(test)]
mod tests;
