//! The authority's certificate and key where a cluster keeps them: the Secret `cacerts` that an operator wrote, else
//! `istio-ca-secret`, which the first control plane makes and all of them share.
//!
//! Owns which of the two counts. Keys are never logged nor written anywhere but into that Secret.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use meltemi_ca::{Authority, Files, Material};
use zeroize::Zeroizing;

use crate::error::{is_conflict, reason};
use crate::follow::{Outage, Steps};

const PLUGGED: &str = "cacerts";
const OWN: &str = "istio-ca-secret";
/// The type that istiod gives it.
const TYPE: &str = "istio.io/ca-root";

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

    /// Supplies the authority with what the Secrets come to hold, for as long as it is awaited.
    pub async fn follow(&self, authority: &Authority) {
        let steps = |name: &str| {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            Steps::new(self.secrets.clone(), config, format!("secrets/{name}"), Outage::default())
        };
        let (mut plugged, mut own) = (steps(PLUGGED), steps(OWN));
        let mut current: BTreeMap<String, Secret> = BTreeMap::new();
        let mut listed = (false, false);
        loop {
            tokio::select! {
                event = plugged.next() => listed.0 |= take(&mut current, event),
                event = own.next() => listed.1 |= take(&mut current, event),
            }
            // Before both are known the one that counts is not.
            let Some(secret) = current.get(PLUGGED).or(current.get(OWN)).filter(|_| listed == (true, true)) else {
                continue;
            };
            match material(secret) {
                Ok(material) => authority.supply(material),
                Err(error) => tracing::error!("Secret {}: {error:#}\nwhat was in force stays", secret.name_any()),
            }
        }
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

fn material(secret: &Secret) -> Result<Material> {
    let data = secret.data.iter().flatten();
    let files: Files = data.map(|(name, bytes)| (name.clone(), Zeroizing::new(bytes.0.clone()))).collect();
    Ok(Material::from_files(&files)?)
}
