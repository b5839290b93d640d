//! Objects of several kinds that have a label, followed for who owns each and for a sign of what it says.
//!
//! Owns what is kept of them: no object, but its place, the uids of its owners, who applied it, and a hash of all that is not its
//! status. A change of status alone is none.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use futures_util::future::join_all;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::sync::watch;

use super::Resource;
use crate::follow::{Outage, Steps};

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
}

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Uids of the owners.
    pub owners: Vec<String>,
    /// The field managers that applied something of it.
    pub managers: Vec<String>,
    /// Of all but status, versions and managers.
    sign: u64,
}

pub type Labelled = BTreeMap<Place, Held>;

impl Held {
    /// Of an object as a document.
    ///
    /// # Errors
    /// When it has no kind or version.
    pub fn of_document(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object).map(|object| Self::of(&object))
    }

    fn of(object: &DynamicObject) -> Self {
        let managers = object.managed_fields().iter().filter(|entry| entry.operation.as_deref() == Some("Apply"));
        let mut data = object.data.clone();
        if let Some(fields) = data.as_object_mut() {
            fields.shift_remove("status");
        }
        let mut hasher = DefaultHasher::new();
        data.to_string().hash(&mut hasher);
        (object.labels(), object.annotations()).hash(&mut hasher);
        Self {
            owners: object.owner_references().iter().map(|owner| owner.uid.clone()).collect(),
            managers: managers.filter_map(|entry| entry.manager.clone()).collect(),
            sign: hasher.finish(),
        }
    }
}

/// Follows the objects of these kinds that have the label. Never resolves.
pub async fn follow_labelled(
    client: &Client,
    label: &str,
    kinds: &[&'static Resource],
    held: &watch::Sender<Labelled>,
) {
    join_all(kinds.iter().map(|resource| follow(client, label, resource, held))).await;
}

async fn follow(client: &Client, label: &str, resource: &'static Resource, held: &watch::Sender<Labelled>) {
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource.api());
    let config = watcher::Config::default().labels(label);
    let mut steps = Steps::new(objects, config, format!("{} with {label}", resource.plural), Outage::default());
    let mut listing = Labelled::new();
    loop {
        match steps.next().await {
            Event::Init => listing.clear(),
            Event::InitApply(object) => drop(listing.insert(place(resource, &object), Held::of(&object))),
            Event::InitDone => {
                let listed = std::mem::take(&mut listing);
                held.send_modify(|held| {
                    held.retain(|place, _| place.kind != resource.kind);
                    held.extend(listed);
                });
            }
            Event::Apply(object) => {
                let (place, now) = (place(resource, &object), Held::of(&object));
                held.send_if_modified(|held| held.insert(place, now.clone()).as_ref() != Some(&now));
            }
            Event::Delete(object) => {
                held.send_if_modified(|held| held.remove(&place(resource, &object)).is_some());
            }
        }
    }
}

fn place(resource: &Resource, object: &DynamicObject) -> Place {
    Place { kind: resource.kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held(change: impl FnOnce(&mut Value)) -> Held {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": "edge", "namespace": "ns", "labels": {"a": "b"}, "resourceVersion": "1",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Gateway", "name": "edge", "uid": "u1"}],
                "managedFields": [
                    {"manager": "us", "operation": "Apply"}, {"manager": "kubectl", "operation": "Update"}
                ],
            },
            "spec": {"replicas": 1}, "status": {"replicas": 0},
        });
        change(&mut object);
        Held::of_document(object).unwrap()
    }

    #[test]
    fn a_change_of_status_is_none_and_one_of_anything_else_is() {
        let before = held(|_| {});
        assert_eq!((&before.owners[..], &before.managers[..]), (&["u1".to_owned()][..], &["us".to_owned()][..]));
        let status = held(|object| {
            object["status"]["replicas"] = json!(1);
            object["metadata"]["resourceVersion"] = json!("2");
        });
        assert_eq!(status, before);
        assert_ne!(held(|object| object["spec"]["replicas"] = json!(2)), before);
        assert_ne!(held(|object| object["metadata"]["labels"]["a"] = json!("c")), before);
        assert_ne!(held(|object| object["metadata"]["ownerReferences"] = json!([])), before);
    }
}
