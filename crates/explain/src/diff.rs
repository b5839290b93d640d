//! What a change to the configuration does to each proxy, before it is applied.
//!
//! Owns the comparison of what two meshes send: resource by resource, in words where there are words for it and field by field
//! where there are none. Proxies to which the same happens are told together.

mod endpoints;
mod fields;
mod listeners;
mod routes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use meltemi_proto::Any;
use meltemi_proto::json::{Secrets, any_to_value};
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::proxies::Proxy;
use crate::sent::Bodies;

pub use fields::Field;

/// More fields of one resource are not of use to a person; JSON has them all.
const MAX_FIELDS: usize = 12;
/// More workloads of one group are counted.
const MAX_NAMED: usize = 12;

/// The same changes at one or more workloads.
#[derive(Debug, Clone)]
pub struct Group {
    pub proxies: Vec<Affected>,
    pub changes: Vec<Change>,
}

/// A workload whose proxies are affected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affected {
    /// `sidecar catalog-v1.shop`.
    pub title: String,
    pub replicas: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `listener`, `route`, `cluster`, `endpoints`, or `proxy` for the proxy as such.
    pub kind: &'static str,
    /// Of the resource, and what is inside it: `80/reviews.default.svc.cluster.local:80`.
    pub name: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Added,
    Removed,
    /// In words: `weight of v2 10 → 50`.
    Told(String),
    Fields(Vec<Field>),
}

impl Change {
    pub(crate) fn told(kind: &'static str, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, name: name.into(), what: What::Told(text.into()) }
    }

    /// `new cluster outbound|80|v2|reviews.default.svc.cluster.local`.
    pub fn text(&self) -> String {
        let (kind, name) = (self.kind, &self.name);
        match &self.what {
            What::Added => format!("new {kind} {name}"),
            What::Removed => format!("{kind} {name} is gone"),
            What::Told(text) => format!("{kind} {name}: {text}"),
            What::Fields(fields) => {
                let mut parts: Vec<String> = fields.iter().take(MAX_FIELDS).map(ToString::to_string).collect();
                if let Some(more) = fields.len().checked_sub(MAX_FIELDS).filter(|more| *more > 0) {
                    parts.push(format!("and {more} fields more"));
                }
                format!("{kind} {name}: {}", parts.join("; "))
            }
        }
    }

    pub fn json(&self) -> Value {
        let mut value = json!({"kind": self.kind, "name": self.name, "text": self.text()});
        let change = match &self.what {
            What::Added => "added",
            What::Removed => "removed",
            What::Told(_) => "changed",
            What::Fields(fields) => {
                value["fields"] = fields.iter().map(Field::json).collect();
                "changed"
            }
        };
        value["change"] = change.into();
        value
    }
}

impl Group {
    pub fn json(&self) -> Value {
        let proxy = |proxy: &Affected| json!({"name": proxy.title, "replicas": proxy.replicas});
        json!({
            "proxies": self.proxies.iter().map(proxy).collect::<Vec<_>>(),
            "changes": self.changes.iter().map(Change::json).collect::<Vec<_>>(),
        })
    }

    /// The proxies on one line, then each change on its own.
    pub fn text(&self) -> String {
        let replicas = |count: usize| if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") };
        let proxies = self.proxies.iter().take(MAX_NAMED);
        let mut proxies: Vec<String> =
            proxies.map(|proxy| format!("{} ({})", proxy.title, replicas(proxy.replicas))).collect();
        if let Some(more) = self.proxies.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            proxies.push(format!("and {more} more"));
        }
        let mut text = format!("{}:\n", proxies.join(", "));
        for change in &self.changes {
            let _ = writeln!(text, "  {}", change.text());
        }
        text
    }
}

/// Everything that differs between two meshes, for whom. What happens to the most workloads comes first.
pub fn diff(old: &Mesh, new: &Mesh) -> Vec<Group> {
    let (before, after) = (workloads(old), workloads(new));
    let mut compared = Compared::default();
    let titles: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    // Each change with those to whom it happens.
    let mut found: Vec<(Change, Vec<Affected>)> = Vec::new();
    for title in titles {
        let (was, is) = (before.get(title), after.get(title));
        let replicas = is.or(was).map_or(0, Vec::len);
        for change in changes((old, was), (new, is), &mut compared) {
            let affected = Affected { title: title.clone(), replicas };
            match found.iter_mut().find(|(own, _)| *own == change) {
                Some((_, proxies)) => proxies.push(affected),
                None => found.push((change, vec![affected])),
            }
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for (change, proxies) in found {
        match groups.iter_mut().find(|group| group.proxies == proxies) {
            Some(group) => group.changes.push(change),
            None => groups.push(Group { proxies, changes: vec![change] }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.proxies.len()));
    groups
}

/// The pods that have a proxy, by what their proxies are called.
fn workloads(mesh: &Mesh) -> BTreeMap<String, Vec<&Proxy>> {
    let mut workloads: BTreeMap<String, Vec<&Proxy>> = BTreeMap::new();
    for proxy in mesh.proxies.iter().filter(|proxy| proxy.node.is_some()) {
        workloads.entry(proxy.title()).or_default().push(proxy);
    }
    workloads
}

fn changes(
    (old, was): (&Mesh, Option<&Vec<&Proxy>>),
    (new, is): (&Mesh, Option<&Vec<&Proxy>>),
    compared: &mut Compared,
) -> Vec<Change> {
    let alone = |what| vec![Change { kind: "proxy", name: "itself".to_owned(), what }];
    let (was, is) = match (was, is) {
        (Some(was), Some(is)) => (was, is),
        (None, Some(_)) => return alone(What::Told("is new".to_owned())),
        (Some(_), None) => return alone(What::Told("is gone".to_owned())),
        (None, None) => return Vec::new(),
    };
    let mut changes = Vec::new();
    if was.len() != is.len() {
        changes.push(Change::told("proxy", "itself", format!("replicas {} → {}", was.len(), is.len())));
    }
    // The same replica on both sides, so that its own name and address do not show.
    let same = was.iter().find_map(|old| Some((*old, *is.iter().find(|new| new.pod == old.pod)?)));
    let pair = same.or_else(|| was.first().copied().zip(is.first().copied()));
    if let Some((was, is)) = pair
        && let (Some(was), Some(is)) = (&was.node, &is.node)
    {
        changes.extend(compared.resources(&old.bodies(was), &new.bodies(is)));
    }
    changes
}

/// Pairs of resources that were compared already: workloads that are sent the same share them.
#[derive(Default)]
pub struct Compared {
    /// By the places of both bodies, which are kept so that the places are not used again.
    pairs: HashMap<(usize, usize), Pair>,
}

struct Pair {
    _bodies: (Arc<Any>, Arc<Any>),
    changes: Vec<Change>,
}

impl Compared {
    /// What differs between what a proxy was and will be sent: routes first, then what they lead to.
    pub fn resources(&mut self, old: &Bodies, new: &Bodies) -> Vec<Change> {
        let mut changes = Vec::new();
        for (kind, before, after) in [
            ("route", &old.routes, &new.routes),
            ("listener", &old.listeners, &new.listeners),
            ("cluster", &old.clusters, &new.clusters),
            ("endpoints", &old.assignments, &new.assignments),
        ] {
            let names: BTreeSet<&Arc<str>> = before.keys().chain(after.keys()).collect();
            for name in names {
                let change = |what| Change { kind, name: name.to_string(), what };
                match (before.get(name), after.get(name)) {
                    (None, Some(_)) => changes.push(change(What::Added)),
                    (Some(_), None) => changes.push(change(What::Removed)),
                    (Some(was), Some(is)) if was.value != is.value => changes.extend(self.pair(kind, name, was, is)),
                    _ => {}
                }
            }
        }
        // An assignment comes and goes with its cluster.
        let is_other =
            |change: &&Change| change.kind == "cluster" && matches!(change.what, What::Added | What::Removed);
        let clusters: BTreeSet<String> = changes.iter().filter(is_other).map(|change| change.name.clone()).collect();
        changes.retain(|change| change.kind != "endpoints" || !clusters.contains(&change.name));
        changes
    }

    fn pair(&mut self, kind: &'static str, name: &str, old: &Arc<Any>, new: &Arc<Any>) -> Vec<Change> {
        let key = (Arc::as_ptr(old) as usize, Arc::as_ptr(new) as usize);
        let compare = || {
            let json = |body: &Arc<Any>| any_to_value(body, Secrets::Redacted);
            let changes = changed(kind, name, &json(old), &json(new));
            Pair { _bodies: (old.clone(), new.clone()), changes }
        };
        self.pairs.entry(key).or_insert_with(compare).changes.clone()
    }
}

fn changed(kind: &'static str, name: &str, old: &Value, new: &Value) -> Vec<Change> {
    let words = match kind {
        "route" => routes::words(name, old, new),
        "listener" => listeners::words(name, old, new),
        "endpoints" => endpoints::words(name, old, new),
        _ => Vec::new(),
    };
    if !words.is_empty() {
        return words;
    }
    // Bytes may differ where the message does not.
    let fields = fields::differing(old, new);
    let change = || Change { kind, name: name.to_owned(), what: What::Fields(fields.clone()) };
    (!fields.is_empty()).then(change).into_iter().collect()
}

#[cfg(test)]
mod tests;
