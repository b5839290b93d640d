//! The roots of the mesh and their revocation lists where pods find them: a ConfigMap each in every namespace (by Istio's names
//! `istio-ca-root-cert` and `istio-ca-crl`, where they have no others).
//!
//! Owns those ConfigMaps: what others make of them is put right. For the leader alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use meltemi_config::Str;
use serde_json::json;
use tokio::time::Instant;

use crate::MANAGER;
use crate::error::reason;
use crate::follow::{Outage, Steps};

/// A ConfigMap of one text.
struct Map<'a> {
    name: &'a str,
    key: &'static str,
}

const ROOTS: &str = "root-cert.pem";
const LISTS: &str = "ca-crl.pem";

/// How soon a new root or a new namespace is seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// No pod of the mesh runs there (istiod's list).
const WITHOUT: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// What each namespace has now.
type Present = BTreeMap<String, String>;

/// The namespaces that do not have the text; an empty one is written only over another.
fn lacking<'a>(namespaces: &'a BTreeSet<Str>, present: &Present, text: &str) -> Vec<&'a str> {
    let wanted = namespaces.iter().map(|name| &**name).filter(|name| !WITHOUT.contains(name));
    wanted.filter(|name| present.get(*name).map_or(!text.is_empty(), |own| own != text)).collect()
}

/// Keeps the roots in a ConfigMap of this name in all `namespaces` for as long as it is awaited.
pub async fn keep_roots(
    (client, name): (Client, &str),
    namespaces: impl Fn() -> BTreeSet<Str> + Send,
    roots: impl Fn() -> Arc<str> + Send,
) {
    keep(&Map { name, key: ROOTS }, client, namespaces, roots).await;
}

/// Keeps the revocation lists in a ConfigMap of this name in all `namespaces` for as long as it is awaited; without any there is
/// none, but where there were some.
pub async fn keep_revocations(
    (client, name): (Client, &str),
    namespaces: impl Fn() -> BTreeSet<Str> + Send,
    lists: impl Fn() -> Arc<str> + Send,
) {
    keep(&Map { name, key: LISTS }, client, namespaces, lists).await;
}

async fn keep(
    map: &Map<'_>,
    client: Client,
    namespaces: impl Fn() -> BTreeSet<Str> + Send,
    text: impl Fn() -> Arc<str> + Send,
) {
    let Map { name, key } = *map;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let mut steps = Steps::new(maps, config, format!("configmaps/{name}"), Outage::default());
    let (mut present, mut listed) = (Present::new(), false);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Namespaces that refused, until when.
    let mut refused: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        tokio::select! {
            event = steps.next() => {
                match event {
                    Event::Init => listed = false,
                    Event::InitDone => listed = true,
                    _ => {}
                }
                follow(&mut present, event, key);
            }
            _ = ticks.tick(), if listed => {
                let (namespaces, text) = (namespaces(), text());
                refused.retain(|_, until| Instant::now() < *until);
                for namespace in lacking(&namespaces, &present, &text) {
                    if refused.contains_key(namespace) {
                        continue;
                    }
                    match write(&client, namespace, map, &text).await {
                        Ok(()) => drop(present.insert(namespace.to_owned(), text.to_string())),
                        Err(error) => {
                            tracing::warn!(namespace, "{key} is not in the ConfigMap {name}: {}", reason(&error));
                            refused.insert(namespace.to_owned(), Instant::now() + RETRY);
                        }
                    }
                }
            }
        }
    }
}

fn follow(present: &mut Present, event: Event<ConfigMap>, key: &str) {
    match event {
        Event::Init => present.clear(),
        Event::InitDone => {}
        Event::InitApply(map) | Event::Apply(map) => {
            let text = map.data.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
            present.insert(map.namespace().unwrap_or_default(), text);
        }
        Event::Delete(map) => drop(present.remove(&map.namespace().unwrap_or_default())),
    }
}

async fn write(client: &Client, namespace: &str, map: &Map<'_>, text: &str) -> kube::Result<()> {
    let Map { name, key } = *map;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { "istio.io/config": "true" } },
        "data": { key: text },
    });
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    // By force: where Istio wrote it before, it is ours now.
    maps.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_without_the_present_roots_lack_them_but_for_those_of_the_cluster() {
        let namespaces: BTreeSet<Str> = ["a", "b", "c", "kube-system"].map(Str::from).into();
        let present =
            [("a", "old"), ("b", "new"), ("gone", "old")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let present = present.into();
        assert_eq!(lacking(&namespaces, &present, "new"), ["a", "c"]);
        assert_eq!(lacking(&namespaces, &present, ""), ["a", "b"], "what is no longer is taken back");
    }
}
