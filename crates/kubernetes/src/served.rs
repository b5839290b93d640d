//! Which kinds the API server has, and in which version: CustomResourceDefinitions, watched.

use std::collections::BTreeMap;

use kube::api::{Api, ApiResource, Object};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use meltemi_config::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::follow::{Outage, Steps};
use crate::watched;

/// Definitions are large, and their schemas mean nothing to us.
const PAGE: u32 = 20;

/// The version to watch of each kind that is served; `None` until the definitions have been listed.
pub(crate) type Served = Option<BTreeMap<Kind, &'static str>>;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DefinitionSpec {
    versions: Vec<Version>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct DefinitionStatus {
    /// `null` in a definition that nobody has looked at yet.
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

type Definition = Object<DefinitionSpec, DefinitionStatus>;

/// The kind that a definition is of, with the version that we would watch; versions are preferred as our table has them.
fn version(definition: &Definition) -> Option<(Kind, Option<&'static str>)> {
    let name = definition.name_any();
    let kind = watched::kinds().find(|kind| watched::name(*kind) == name)?;
    let conditions = definition.status.iter().flat_map(|status| &status.conditions).flatten();
    let established = conditions.into_iter().any(|found| found.kind == "Established" && found.status == "True");
    let is_served = |version: &str| definition.spec.versions.iter().any(|found| found.served && found.name == version);
    let version = kind.info().versions.iter().copied().find(|version| established && is_served(version));
    Some((kind, version))
}

/// Follows the definitions for as long as anybody listens.
pub(crate) async fn follow(client: Client, served: watch::Sender<Served>, outage: Outage) {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<Definition> = Api::all_with(client, &ApiResource::from_gvk(&kind));
    let config = watcher::Config::default().page_size(PAGE);
    let mut listed: Option<BTreeMap<Kind, &'static str>> = None;
    let mut steps = Steps::new(definitions, config, "customresourcedefinitions".to_owned(), outage);
    loop {
        let mut current = served.borrow().clone().unwrap_or_default();
        match steps.next().await {
            Event::Init => listed = Some(BTreeMap::new()),
            Event::InitApply(definition) => {
                if let (Some(listed), Some((kind, Some(version)))) = (&mut listed, version(&definition)) {
                    listed.insert(kind, version);
                }
                continue;
            }
            Event::InitDone => current = listed.take().unwrap_or_default(),
            Event::Apply(definition) => match version(&definition) {
                Some((kind, Some(version))) => drop(current.insert(kind, version)),
                Some((kind, None)) => drop(current.remove(&kind)),
                None => continue,
            },
            Event::Delete(definition) => match version(&definition) {
                Some((kind, _)) => drop(current.remove(&kind)),
                None => continue,
            },
        }
        if listed.is_none() {
            served.send_if_modified(|known| {
                let changed = known.as_ref() != Some(&current);
                *known = Some(current);
                changed
            });
        }
    }
}

#[cfg(test)]
mod tests;
