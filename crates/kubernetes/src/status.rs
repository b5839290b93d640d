//! The status of objects, as it is written to the API server.
//!
//! Owns how ours and what others wrote become one: a condition that says what it said before keeps the time since when, rows
//! of other controllers stay. For the leader alone.

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use meltemi_config::{Key, Kind};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::error::{is_conflict, is_not_found, reason};
use crate::revision::REVISION;
use crate::served::Served;
use crate::store::Ownership;
use crate::watched;

/// Others write, too: so often it is tried with what they wrote.
const ATTEMPTS: u32 = 4;
/// Of a policy: its definition has room for no more.
const MAX_ANCESTORS: usize = 16;

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

    /// Writes what we have to say of an object; `false` where it says so already, is another revision's or is gone.
    pub async fn write(&self, key: &Key, status: &Value) -> Result<bool, String> {
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
            let Some(after) = merged(&before, status, Timestamp::now()) else { return Ok(false) };
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

/// The status with ours in it; `None` where that changes nothing.
fn merged(before: &Value, ours: &Value, now: Timestamp) -> Option<Value> {
    let mut after = before.as_object().cloned().unwrap_or_default();
    for (field, value) in ours.as_object().into_iter().flatten() {
        let old = before.get(field).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let new = match (field.as_str(), value) {
            ("conditions", Value::Array(ours)) => conditions(old, ours, true, now).into(),
            ("listeners", Value::Array(ours)) => rows(old, ours, |row| row.get("name"), now).into(),
            ("parents", Value::Array(ours)) => entries(old, ours, "parentRef", now).into(),
            ("ancestors", Value::Array(ours)) => {
                let mut all = entries(old, ours, "ancestorRef", now);
                all.truncate(MAX_ANCESTORS);
                all.into()
            }
            _ => value.clone(),
        };
        after.insert(field.clone(), new);
    }
    // What is not there and what is empty are one.
    after.retain(|field, value| !is_empty(value) || before.get(field).is_some_and(|before| !is_empty(before)));
    (filled(&after) != before.as_object().map(filled).unwrap_or_default()).then_some(after.into())
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.is_null()
}

fn filled(status: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut filled: Vec<_> = status.iter().filter(|(_, value)| !is_empty(value)).collect();
    filled.sort_by_key(|(field, _)| *field);
    filled
}

/// Our conditions with the time since when they hold, and those of others after them where they may stay.
fn conditions(before: &[Value], ours: &[Value], others: bool, now: Timestamp) -> Vec<Value> {
    let old = |kind: Option<&Value>| before.iter().find(|old| kind.is_some() && old.get("type") == kind);
    let own = ours.iter().map(|condition| {
        let before = old(condition.get("type")).filter(|old| old.get("status") == condition.get("status"));
        let since = before.and_then(|old| old.get("lastTransitionTime")).cloned();
        let mut condition = condition.as_object().cloned().unwrap_or_default();
        condition.insert("lastTransitionTime".to_owned(), since.unwrap_or_else(|| time(now)));
        Value::Object(condition)
    });
    let own: Vec<Value> = own.collect();
    let kinds: Vec<Option<&Value>> = ours.iter().map(|condition| condition.get("type")).collect();
    let others = before.iter().filter(|old| others && !kinds.contains(&old.get("type"))).cloned();
    let mut all: Vec<Value> = own.iter().cloned().chain(others).collect();
    // In the order in which they were, so that nothing differs where nothing changed.
    all.sort_by_key(|condition| {
        before.iter().position(|old| old.get("type") == condition.get("type")).unwrap_or(usize::MAX)
    });
    all
}

/// Seconds are what conditions have (`metav1.Time`).
fn time(now: Timestamp) -> Value {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// Rows of ours whose conditions go on from the row of before with the same name.
fn rows(
    before: &[Value],
    ours: &[Value],
    name: impl for<'a> Fn(&'a Value) -> Option<&'a Value>,
    now: Timestamp,
) -> Vec<Value> {
    let row = |row: &Value| {
        let old = before.iter().find(|old| name(old) == name(row)).and_then(|old| old.get("conditions"));
        let old = old.and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let ours = row.get("conditions").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let mut row: Map<String, Value> = row.as_object().cloned().unwrap_or_default();
        row.insert("conditions".to_owned(), conditions(old, ours, false, now).into());
        Value::Object(row)
    };
    ours.iter().map(row).collect()
}

/// The rows of other controllers stay where they are; ours, told apart by what they refer to, come after them.
fn entries(before: &[Value], ours: &[Value], reference: &str, now: Timestamp) -> Vec<Value> {
    let own = |row: &&Value| row.get("controllerName").and_then(Value::as_str).is_some_and(is_ours);
    let old: Vec<Value> = before.iter().filter(own).cloned().collect();
    let new = rows(&old, ours, |row| row.get(reference), now);
    before.iter().filter(|row| !own(row)).cloned().chain(new).collect()
}

/// The controllers of ours that write rows; the second does of Services.
fn is_ours(controller: &str) -> bool {
    ["istio.io/gateway-controller", "istio.io/mesh-controller"].contains(&controller)
}

#[cfg(test)]
mod tests;
