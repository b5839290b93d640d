//! The authority's certificate and key where a cluster keeps them: the Secret `cacerts` that an operator wrote, else
//! `istio-ca-secret`, which the first control plane makes and all of them share.
//!
//! Owns which of the two counts, when our own has another root, and the Secret in which replicas remember roots that no longer sign.
//! Keys are never logged nor written anywhere but into that Secret.

mod change;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use meltemi_ca::{Authority, Files, FormerRoot, Material};
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::change::Change;
use crate::error::{is_conflict, reason};
use crate::follow::{Outage, Steps};

const PLUGGED: &str = "cacerts";
const OWN: &str = "istio-ca-secret";
/// The type that istiod gives it.
const TYPE: &str = "istio.io/ca-root";
/// Roots that are trusted although the others no longer hold them.
const FORMER: &str = "istio-ca-former-roots";
const FORMER_KEY: &str = "roots.json";
const FORMER_TYPE: &str = "meltemi.io/ca-former-roots";

/// How often it is looked whether something is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Which replica we are, and whether it leads.
pub struct Leadership<'a> {
    pub identity: &'a str,
    pub leads: watch::Receiver<bool>,
}

/// The Secrets of an authority in one namespace.
pub struct AuthoritySecrets {
    secrets: Api<Secret>,
}

impl AuthoritySecrets {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { secrets: Api::namespaced(client, namespace) }
    }

    /// What signs: what was plugged in, or the root that is kept; without either a new root, kept from now on.
    pub async fn material(&self, make: impl Fn() -> Result<Material>) -> Result<Material> {
        for name in [PLUGGED, OWN] {
            if let Some(secret) = self.get(name).await? {
                return material(&secret).with_context(|| format!("Secret {name}"));
            }
        }
        let made = make()?;
        let files = made.to_files().into_iter().map(|(name, bytes)| (name, ByteString(bytes.to_vec())));
        let secret = Secret {
            metadata: ObjectMeta { name: Some(OWN.to_owned()), ..ObjectMeta::default() },
            type_: Some(TYPE.to_owned()),
            data: Some(files.collect()),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!("a new root of the mesh is kept in the Secret {OWN}");
                Ok(made)
            }
            // Another replica was first: its root is everybody's.
            Err(error) if is_conflict(&error) => {
                let secret = self.get(OWN).await?.with_context(|| format!("Secret {OWN}: gone again"))?;
                material(&secret).with_context(|| format!("Secret {OWN}"))
            }
            Err(error) => anyhow::bail!("Secret {OWN}: {}", reason(&error)),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>> {
        self.secrets.get_opt(name).await.map_err(|error| anyhow::anyhow!("Secret {name}: {}", reason(&error)))
    }

    /// Roots that were trusted before this replica was there.
    pub async fn former(&self) -> Result<Vec<FormerRoot>> {
        match self.get(FORMER).await? {
            Some(secret) => former(&secret).with_context(|| format!("Secret {FORMER}")),
            None => Ok(Vec::new()),
        }
    }

    /// Supplies the authority with what the Secrets come to hold, and takes this replica's part in what they are to hold, for as
    /// long as it is awaited.
    pub async fn follow(&self, authority: &Authority, replica: Leadership<'_>) {
        let steps = |name: &str| {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            Steps::new(self.secrets.clone(), config, format!("secrets/{name}"), Outage::default())
        };
        let (mut plugged, mut own, mut former) = (steps(PLUGGED), steps(OWN), steps(FORMER));
        let mut state = Following { current: BTreeMap::new(), change: Change::new(replica.identity), retry: None };
        let mut listed = [false; 3];
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = plugged.next() => listed[0] |= take(&mut state.current, event),
                event = own.next() => listed[1] |= take(&mut state.current, event),
                event = former.next() => listed[2] |= take(&mut state.current, event),
                // Before all are known the one that counts is not.
                _ = ticks.tick(), if listed == [true; 3] => {
                    let leads = *replica.leads.borrow();
                    self.keep(&mut state, authority, leads).await;
                    continue;
                }
            }
            if listed == [true; 3] {
                state.supply(authority);
            }
        }
    }

    /// Writes what is to be written now; where somebody else was faster, what they wrote is looked at next.
    async fn keep(&self, state: &mut Following, authority: &Authority, leads: bool) {
        if state.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        state.retry = None;
        let secrets = [state.own(authority, leads), state.former(authority)];
        for secret in secrets.into_iter().flatten() {
            let name = secret.name_any();
            let written = match secret.metadata.resource_version {
                Some(_) => self.secrets.replace(&name, &PostParams::default(), &secret).await,
                None => self.secrets.create(&PostParams::default(), &secret).await,
            };
            match written {
                Ok(written) => {
                    state.current.insert(name, written);
                    state.supply(authority);
                }
                Err(error) => {
                    if !is_conflict(&error) {
                        tracing::warn!("Secret {name} is not written: {}", reason(&error));
                    }
                    state.retry = Some(Instant::now() + RETRY);
                }
            }
        }
    }
}

/// What the Secrets hold, and this replica's part in it.
struct Following {
    current: BTreeMap<String, Secret>,
    change: Change,
    retry: Option<Instant>,
}

impl Following {
    /// Gives the authority what counts.
    fn supply(&self, authority: &Authority) {
        let counts = self.current.get(PLUGGED).or(self.current.get(OWN)).filter(|_| authority.is_supplied());
        match counts.map(|secret| (secret.name_any(), material(secret))) {
            Some((_, Ok(material))) => authority.supply(material),
            Some((name, Err(error))) => tracing::error!("Secret {name}: {error:#}\nwhat was in force stays"),
            // Its certificate is in files, or others sign.
            None => {}
        }
        let remembered = self.remembered().and_then(|former| Ok(authority.remember(&former, SystemTime::now())?));
        if let Err(error) = remembered {
            tracing::error!("Secret {FORMER}: {error:#}");
        }
    }

    fn remembered(&self) -> Result<Vec<FormerRoot>> {
        self.current.get(FORMER).map_or_else(|| Ok(Vec::new()), former)
    }

    /// Our own Secret as it is to be, where it is the one that counts.
    fn own(&mut self, authority: &Authority, leads: bool) -> Option<Secret> {
        let counts = authority.is_supplied() && !self.current.contains_key(PLUGGED);
        let own = self.current.get(OWN).filter(|_| counts)?;
        let turn = self.change.turn(own, authority, (leads, Instant::now()));
        turn.unwrap_or_else(|error| {
            tracing::error!("Secret {OWN}: {error:#}");
            self.retry = Some(Instant::now() + RETRY);
            None
        })
    }

    /// The Secret of former roots, where ours are to be trusted for longer than it says.
    fn former(&self, authority: &Authority) -> Option<Secret> {
        let (own, now) = (authority.former_roots(), SystemTime::now());
        // One that is broken is written anew.
        let known = self.remembered().unwrap_or_default();
        let all = FormerRoot::union(&own, &known, now);
        let is_known = |former: &FormerRoot| known.contains(former);
        if all.iter().all(is_known) {
            return None;
        }
        let text = ByteString(FormerRoot::to_text(&all).into_bytes());
        let metadata = self.current.get(FORMER).map(|secret| secret.metadata.clone());
        Some(Secret {
            metadata: metadata.unwrap_or_else(|| ObjectMeta { name: Some(FORMER.to_owned()), ..ObjectMeta::default() }),
            type_: Some(FORMER_TYPE.to_owned()),
            data: Some([(FORMER_KEY.to_owned(), text)].into()),
            ..Secret::default()
        })
    }
}

/// True once the list is whole. A Secret that is deleted leaves in force what it held.
fn take(current: &mut BTreeMap<String, Secret>, event: Event<Secret>) -> bool {
    match event {
        Event::InitApply(secret) | Event::Apply(secret) => drop(current.insert(secret.name_any(), secret)),
        Event::Delete(secret) => drop(current.remove(&secret.name_any())),
        Event::Init => {}
        Event::InitDone => return true,
    }
    false
}

fn files(secret: &Secret) -> Files {
    let data = secret.data.iter().flatten();
    data.map(|(name, bytes)| (name.clone(), Zeroizing::new(bytes.0.clone()))).collect()
}

fn former(secret: &Secret) -> Result<Vec<FormerRoot>> {
    let text = secret.data.as_ref().and_then(|data| data.get(FORMER_KEY)).context(FORMER_KEY)?;
    Ok(FormerRoot::from_text(std::str::from_utf8(&text.0).context(FORMER_KEY)?)?)
}

fn material(secret: &Secret) -> Result<Material> {
    Ok(Material::from_files(&files(secret))?)
}
