//! The roots of the mesh where pods find them: a ConfigMap in every namespace (Istio's `istio-ca-root-cert`).
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

const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";

/// How soon a new root or a new namespace is seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// No pod of the mesh runs there (istiod's list).
const WITHOUT: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// What each namespace has now.
type Present = BTreeMap<String, String>;

/// The namespaces that do not have the roots.
fn lacking<'a>(namespaces: &'a BTreeSet<Str>, present: &Present, roots: &str) -> Vec<&'a str> {
    let wanted = namespaces.iter().map(|name| &**name).filter(|name| !WITHOUT.contains(name));
    wanted.filter(|name| present.get(*name).map(String::as_str) != Some(roots)).collect()
}

/// Keeps the roots in all `namespaces` for as long as it is awaited.
pub async fn keep_roots(
    client: Client,
    namespaces: impl Fn() -> BTreeSet<Str> + Send,
    roots: impl Fn() -> Arc<str> + Send,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let mut steps = Steps::new(maps, config, format!("configmaps/{NAME}"), Outage::default());
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
                follow(&mut present, event);
            }
            _ = ticks.tick(), if listed => {
                let (namespaces, roots) = (namespaces(), roots());
                refused.retain(|_, until| Instant::now() < *until);
                for namespace in lacking(&namespaces, &present, &roots) {
                    if refused.contains_key(namespace) {
                        continue;
                    }
                    match write(&client, namespace, &roots).await {
                        Ok(()) => drop(present.insert(namespace.to_owned(), roots.to_string())),
                        Err(error) => {
                            tracing::warn!(namespace, "the mesh's roots are not in {NAME}: {}", reason(&error));
                            refused.insert(namespace.to_owned(), Instant::now() + RETRY);
                        }
                    }
                }
            }
        }
    }
}

fn follow(present: &mut Present, event: Event<ConfigMap>) {
    match event {
        Event::Init => present.clear(),
        Event::InitDone => {}
        Event::InitApply(map) | Event::Apply(map) => {
            let text = map.data.as_ref().and_then(|data| data.get(KEY)).cloned().unwrap_or_default();
            present.insert(map.namespace().unwrap_or_default(), text);
        }
        Event::Delete(map) => drop(present.remove(&map.namespace().unwrap_or_default())),
    }
}

async fn write(client: &Client, namespace: &str, roots: &str) -> kube::Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": NAME, "labels": { "istio.io/config": "true" } },
        "data": { KEY: roots },
    });
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    // By force: where Istio wrote it before, it is ours now.
    maps.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_without_the_present_roots_lack_them_but_for_those_of_the_cluster() {
        let namespaces: BTreeSet<Str> = ["a", "b", "c", "kube-system"].map(Str::from).into();
        let present =
            [("a", "old"), ("b", "new"), ("gone", "old")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(lacking(&namespaces, &present.into(), "new"), ["a", "c"]);
    }
}
