//! Which revision an object is for. Its label `istio.io/rev` names a revision or a tag; the webhook configuration or the
//! Service that carries a tag (`istio.io/tag`) names the revision that the tag leads to.
//!
//! Owns the names that one revision goes by, followed at the API server. Tags that cannot be read do not hold up anything:
//! after a while the revision's own name counts alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::decode::Reader;
use crate::follow::{Outage, Steps};

pub(crate) const REVISION: &str = "istio.io/rev";
const TAG: &str = "istio.io/tag";
const DEFAULT: &str = "default";
/// Its revision is the cluster's default where no tag says otherwise.
const DEFAULT_VALIDATOR: &str = "istiod-default-validator";

/// The names that a revision goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    all: BTreeSet<String>,
    is_default: bool,
}

impl Names {
    /// Of a revision to which no tag leads.
    pub(crate) fn of(revision: &str) -> Self {
        let own = if revision.is_empty() { DEFAULT } else { revision };
        Self { all: [own.to_owned()].into(), is_default: own == DEFAULT }
    }

    /// Whether an object with this label is configuration of the revision. One without is everybody's.
    pub(crate) fn read(&self, label: Option<&str>) -> bool {
        label.is_none_or(|label| self.all.contains(label))
    }

    /// Whether what is said of an object is the revision's to say, by its own label or else its namespace's: of several
    /// revisions that read it one writes.
    pub(crate) fn write(&self, label: &str) -> bool {
        if label.is_empty() { self.is_default } else { self.all.contains(label) }
    }
}

/// What an object says by its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    tag: String,
    revision: String,
}

impl Mark {
    fn of(object: &impl ResourceExt) -> Self {
        let label = |name: &str| object.labels().get(name).cloned().unwrap_or_default();
        Self { tag: label(TAG), revision: label(REVISION) }
    }
}

/// What has been said by the objects of one kind.
#[derive(Default)]
struct Marks {
    present: BTreeMap<String, Mark>,
    listing: Option<BTreeMap<String, Mark>>,
    listed: bool,
}

impl Marks {
    fn take<T: Resource<DynamicType = ()>>(&mut self, event: Event<T>) {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                drop(self.listing.get_or_insert_default().insert(object.name_any(), Mark::of(&object)));
            }
            Event::InitDone => {
                self.present = self.listing.take().unwrap_or_default();
                self.listed = true;
            }
            Event::Apply(object) => drop(self.present.insert(object.name_any(), Mark::of(&object))),
            Event::Delete(object) => drop(self.present.remove(&object.name_any())),
        }
    }

    fn tags(&self) -> impl Iterator<Item = &Mark> {
        self.present.values().filter(|mark| !mark.tag.is_empty())
    }
}

/// All that tags are known by.
#[derive(Default)]
struct Known {
    webhooks: Marks,
    services: Marks,
    validators: Marks,
}

impl Known {
    /// Once all have been listed.
    fn names(&self, revision: &str) -> Option<Names> {
        if ![&self.webhooks, &self.services, &self.validators].iter().all(|marks| marks.listed) {
            return None;
        }
        let own = if revision.is_empty() { DEFAULT } else { revision };
        let mut names = Names::of(revision);
        let tags = self.webhooks.tags().chain(self.services.tags());
        names.all.extend(tags.filter(|mark| mark.revision == own).map(|mark| mark.tag.clone()));
        let is_validator = self.validators.present.values().any(|mark| mark.revision == own);
        let is_tagged = self.webhooks.tags().any(|mark| mark.tag == DEFAULT);
        names.is_default = names.all.contains(DEFAULT) || is_validator && !is_tagged;
        Some(names)
    }
}

fn steps<T>(api: Api<T>, config: watcher::Config, what: &str, outage: &Outage) -> Steps<T>
where
    T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    Steps::new(api, config, format!("{what} of revisions"), outage.clone())
}

/// Follows the names for as long as it is awaited.
pub(crate) async fn follow(client: Client, reader: &Reader, names: watch::Sender<Option<Names>>, outage: Outage) {
    let tagged = watcher::Config::default().labels(TAG);
    let default = watcher::Config::default().fields(&format!("metadata.name={DEFAULT_VALIDATOR}"));
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validators: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let services: Api<Service> = Api::namespaced(client, &reader.namespace);
    let mut webhooks = steps(webhooks, tagged.clone(), "mutatingwebhookconfigurations", &outage);
    let mut services = steps(services, tagged, "services", &outage);
    let mut validators = steps(validators, default, "validatingwebhookconfigurations", &outage);
    let mut known = Known::default();
    loop {
        tokio::select! {
            event = webhooks.next() => known.webhooks.take(event),
            event = services.next() => known.services.take(event),
            event = validators.next() => known.validators.take(event),
        }
        let Some(current) = known.names(&reader.revision) else { continue };
        names.send_if_modified(|told| {
            let changed = told.as_ref() != Some(&current);
            *told = Some(current);
            changed
        });
    }
}

#[cfg(test)]
mod tests;
