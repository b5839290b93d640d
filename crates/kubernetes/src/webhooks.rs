//! What the API server needs to know to ask us: the root that vouches for our webhooks, in their configurations, and that
//! validation may be insisted on.
//!
//! Owns the field `caBundle` of this revision's configurations and `failurePolicy` of those that validate, which is `Ignore`
//! until an object that must be refused is refused. For the leader alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Api, DynamicObject, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use meltemi_config::Kind;
use serde_json::json;

use crate::error::{is_conflict, is_not_found, reason};
use crate::follow::{Outage, Steps};
use crate::watched;

const REVISION: &str = "istio.io/rev";
/// The ends of the names of webhooks that are ours.
const INJECTION: &str = "sidecar-injector.istio.io";
const VALIDATION: &str = "validation.istio.io";
/// On an object that validation refuses whatever is in it.
const ALWAYS_REJECT: &str = "internal.istio.io/webhook-always-reject";

/// How soon a new root or an altered configuration is seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two tries whether validation refuses what it must.
const TRY_EVERY: u32 = 5;

/// A configuration of webhooks, as far as it is ours to write.
trait Configuration: kube::Resource<DynamicType = ()> + Clone {
    /// Brings it to this root, and to `Fail` where validation is known to work; true where that changes it.
    fn adopt(&mut self, root: &[u8], insist: bool) -> bool;
}

fn set<T: PartialEq>(field: &mut T, value: T) -> bool {
    let changed = *field != value;
    if changed {
        *field = value;
    }
    changed
}

impl Configuration for MutatingWebhookConfiguration {
    fn adopt(&mut self, root: &[u8], _insist: bool) -> bool {
        let own = self.webhooks.iter_mut().flatten().filter(|webhook| webhook.name.ends_with(INJECTION));
        own.fold(false, |changed, webhook| {
            changed | set(&mut webhook.client_config.ca_bundle, Some(ByteString(root.to_vec())))
        })
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn adopt(&mut self, root: &[u8], insist: bool) -> bool {
        let own = self.webhooks.iter_mut().flatten().filter(|webhook| webhook.name.ends_with(VALIDATION));
        own.fold(false, |changed, webhook| {
            let bundle = set(&mut webhook.client_config.ca_bundle, Some(ByteString(root.to_vec())));
            let policy = insist && set(&mut webhook.failure_policy, Some("Fail".to_owned()));
            changed | bundle | policy
        })
    }
}

/// One kind of configuration, as the server has it.
struct Kept<T> {
    api: Api<T>,
    present: BTreeMap<String, T>,
    /// Why a configuration could not be written, as it was told last.
    refused: BTreeMap<String, String>,
}

impl<T> Kept<T>
where
    T: Configuration + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug + Send + 'static,
{
    fn follow(&mut self, event: watcher::Event<T>) {
        match event {
            watcher::Event::Init => self.present.clear(),
            watcher::Event::InitApply(found) | watcher::Event::Apply(found) => {
                drop(self.present.insert(found.name_any(), found));
            }
            watcher::Event::Delete(found) => drop(self.present.remove(&found.name_any())),
            watcher::Event::InitDone => {}
        }
    }

    async fn write(&mut self, root: &[u8], insist: bool) {
        for (name, found) in &mut self.present {
            let mut wanted = found.clone();
            if !wanted.adopt(root, insist) {
                continue;
            }
            match self.api.replace(name, &PostParams::default(), &wanted).await {
                Ok(written) => {
                    *found = written;
                    self.refused.remove(name);
                }
                // What others wrote comes with the watch.
                Err(error) if is_conflict(&error) || is_not_found(&error) => {}
                Err(error) => {
                    let reason = reason(&error);
                    if self.refused.get(name) != Some(&reason) {
                        tracing::warn!(name, "configuration of webhooks not written: {reason}");
                        self.refused.insert(name.clone(), reason);
                    }
                }
            }
        }
    }
}

/// Keeps the webhooks of a revision as they are to be, for as long as it is awaited.
pub async fn keep_webhooks(client: Client, revision: &str, namespace: &str, root: impl Fn() -> Arc<str> + Send) {
    let revision = if revision.is_empty() { "default" } else { revision };
    let config = watcher::Config::default().labels(&format!("{REVISION}={revision}"));
    let mut injecting: Kept<MutatingWebhookConfiguration> =
        Kept { api: Api::all(client.clone()), present: BTreeMap::new(), refused: BTreeMap::new() };
    let mut validating: Kept<ValidatingWebhookConfiguration> =
        Kept { api: Api::all(client.clone()), present: BTreeMap::new(), refused: BTreeMap::new() };
    let outage = Outage::default();
    let what = |kind: &str| format!("{kind}webhookconfigurations");
    let mut injection = Steps::new(injecting.api.clone(), config.clone(), what("mutating"), outage.clone());
    let mut validation = Steps::new(validating.api.clone(), config, what("validating"), outage);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut insist, mut tick) = (false, 0u32);
    loop {
        tokio::select! {
            event = injection.next() => injecting.follow(event),
            event = validation.next() => validating.follow(event),
            _ = ticks.tick() => {
                tick = tick.wrapping_add(1);
                if !insist && !validating.present.is_empty() && tick.is_multiple_of(TRY_EVERY) {
                    insist = refuses(&client, namespace, revision).await;
                }
                let root = root();
                injecting.write(root.as_bytes(), insist).await;
                validating.write(root.as_bytes(), insist).await;
            }
        }
    }
}

/// Whether an object that must be refused is, by way of the API server: nothing is made even where it is not.
async fn refuses(client: &Client, namespace: &str, revision: &str) -> bool {
    let kind = Kind::Gateway;
    let resource = watched::resource(kind, kind.info().versions[0]);
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut object = DynamicObject::new("meltemi-validation-probe", &resource).data(json!({ "spec": {} }));
    // Each revision is asked about its own objects.
    object.metadata.labels = Some([(REVISION.to_owned(), revision.to_owned())].into());
    object.metadata.annotations = Some([(ALWAYS_REJECT.to_owned(), "true".to_owned())].into());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    match objects.create(&dry, &object).await {
        Err(kube::Error::Api(status)) => status.message.contains("denied the request"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
