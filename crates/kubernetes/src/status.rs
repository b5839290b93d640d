//! The status of objects, as it is written to the API server.
//!
//! Owns that nothing of what others write meanwhile is lost, and that nothing is written that is there already. For the leader alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use meltemi_config::{Key, Kind};
use serde_json::Value;
use tokio::sync::watch;

use crate::error::{is_conflict, is_not_found, reason};
use crate::revision::REVISION;
use crate::served::Served;
use crate::store::Ownership;
use crate::watched;

/// Others write, too: so often it is tried with what they wrote.
const ATTEMPTS: u32 = 4;

/// Writes statuses, at the versions that the server has.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    served: watch::Receiver<Served>,
    ownership: Ownership,
}

impl StatusWriter {
    pub(crate) fn new(client: Client, served: watch::Receiver<Served>, ownership: Ownership) -> Self {
        Self { client, served, ownership }
    }

    /// Where the kind is served, if it is.
    fn version(&self, kind: Kind) -> Option<&'static str> {
        match watched::has_definition(kind) {
            true => self.served.borrow().as_ref().and_then(|served| served.get(&kind)).copied(),
            false => kind.info().versions.first().copied(),
        }
    }

    fn is_ours(&self, object: &DynamicObject) -> bool {
        let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION));
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        self.ownership.includes(namespace, label.map(String::as_str))
    }

    /// The objects of a kind whose status satisfies `wanted`, as the server has it.
    pub async fn find(&self, kind: Kind, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Key>, String> {
        let Some(version) = self.version(kind) else { return Ok(Vec::new()) };
        let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &watched::resource(kind, version));
        let mut found = Vec::new();
        let mut parameters = ListParams::default().limit(watched::PAGE);
        loop {
            let page = objects.list(&parameters).await.map_err(|error| reason(&error))?;
            let status = |object: &DynamicObject| object.data.get("status").is_some_and(&wanted);
            let matching = page.items.iter().filter(|object| status(object) && self.is_ours(object));
            found.extend(matching.map(|object| {
                let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
                Key::new(kind, namespace, object.metadata.name.as_deref().unwrap_or_default())
            }));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    /// Writes what `status` makes of an object's status (null where it has none) and of the time, in the form that conditions have it;
    /// `false` where it says so already, is another revision's or is gone.
    pub async fn write(&self, key: &Key, status: impl Fn(&Value, &str) -> Value) -> Result<bool, String> {
        let Some(version) = self.version(key.kind) else { return Ok(false) };
        let resource = watched::resource(key.kind, version);
        let objects: Api<DynamicObject> = match key.kind.info().namespaced {
            true => Api::namespaced_with(self.client.clone(), &key.namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        };
        for _ in 0..ATTEMPTS {
            let found = objects.get_opt(&key.name).await.map_err(|error| reason(&error))?;
            let Some(mut object) = found.filter(|object| self.is_ours(object)) else { return Ok(false) };
            let before = object.data.get("status").cloned().unwrap_or_default();
            let after = status(&before, &time(Timestamp::now()));
            if says_the_same(&before, &after) {
                return Ok(false);
            }
            object.metadata.managed_fields = None;
            object.data["status"] = after;
            match objects.replace_status(&key.name, &PostParams::default(), &object).await {
                Ok(_) => return Ok(true),
                Err(error) if is_conflict(&error) => {}
                Err(error) if is_not_found(&error) => return Ok(false),
                Err(error) => return Err(reason(&error)),
            }
        }
        Err("others write at the same time".to_owned())
    }
}

/// What is not there and what is empty are one.
fn says_the_same(before: &Value, after: &Value) -> bool {
    filled(before) == filled(after)
}

fn filled(status: &Value) -> BTreeMap<&String, &Value> {
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.is_null();
    status.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value)).collect()
}

/// Seconds are what conditions have (`metav1.Time`).
fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
