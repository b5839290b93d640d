//! What a replica's proxy is told of itself (`PROXY_CONFIG`), merged as Istio's injection merges it.
//!
//! Owns the order: MeshConfig's `defaultConfig`, then the oldest ProxyConfig without a selector of the root namespace and of
//! the replica's own, then the pod's annotation, then the oldest ProxyConfig of the namespace that selects the pod. Of
//! `defaultConfig` only what a ProxyConfig can say as well is taken over, and `readinessProbe`; the rest the fabric
//! decides. A replica that registers itself gets the probe of its WorkloadGroup, as `istioctl x workload entry configure`
//! writes it.

use std::collections::BTreeMap;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::{ProxyConfigResource, ReadinessProbe, WorkloadGroup};
use meltemi_config::{Object, Spec, Str};
use serde_json::{Map, Value, json};

const ANNOTATION: &str = "proxy.istio.io/config";
const PROBE: &str = "readinessProbe";
const REGISTERS: &str = "ISTIO_META_AUTO_REGISTER_GROUP";

/// The ProxyConfigs, the oldest first.
pub(crate) struct ProxyConfigs<'a> {
    mesh: &'a MeshConfig,
    list: Vec<(&'a str, &'a ProxyConfigResource)>,
    groups: BTreeMap<(&'a str, &'a str), &'a WorkloadGroup>,
}

impl<'a> ProxyConfigs<'a> {
    pub fn of(objects: &'a [Object], mesh: &'a MeshConfig) -> Self {
        let mut list: Vec<(&Object, &ProxyConfigResource)> = Vec::new();
        list.extend(objects.iter().filter_map(|object| match &object.spec {
            Spec::ProxyConfig(spec) => Some((object, &**spec)),
            _ => None,
        }));
        list.sort_by_key(|(object, _)| (object.meta.creation_timestamp, &object.meta.name));
        let group = |object: &'a Object| {
            let spec = object.spec_as::<WorkloadGroup>()?;
            Some(((&*object.meta.namespace, &*object.meta.name), &**spec))
        };
        let list = list.into_iter().map(|(object, spec)| (&*object.meta.namespace, spec)).collect();
        Self { mesh, list, groups: objects.iter().filter_map(group).collect() }
    }

    /// The text of `PROXY_CONFIG`. An annotation that is no map is passed on as it is, for the agent to refuse.
    pub fn effective(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> String {
        let annotation = annotations.get(ANNOTATION);
        let own = match annotation.map(|text| serde_saphyr::from_str::<Value>(text)) {
            None => None,
            Some(Ok(Value::Object(own))) => Some(own),
            Some(_) => return annotation.cloned().unwrap_or_default(),
        };
        let mut merged = Map::new();
        if own.is_none() {
            // One machine carries every proxy, and nobody waits for it longer than for its programs.
            merged.insert("concurrency".to_owned(), json!(1));
            merged.insert("terminationDrainDuration".to_owned(), json!("1s"));
        }
        let default = &self.mesh.default_config;
        add(&mut merged, default.concurrency, &default.proxy_metadata);
        default.readiness_probe.iter().for_each(|probe| drop(merged.insert(PROBE.to_owned(), json!(probe))));
        let of_all = |wanted: &str| self.find(wanted, |spec| selector(spec).is_none());
        let root = &*self.mesh.root_namespace;
        let general = of_all(root).into_iter().chain(of_all(namespace).filter(|_| namespace != root));
        general.for_each(|spec| add(&mut merged, spec.concurrency, &spec.environment_variables));
        own.into_iter().flatten().for_each(|(key, value)| merge(&mut merged, key, value));
        let selects = |spec: &ProxyConfigResource| {
            let wanted = selector(spec).filter(|wanted| !wanted.is_empty());
            wanted.is_some_and(|wanted| {
                wanted.iter().all(|(key, value)| labels.get(&**key).is_some_and(|own| **own == **value))
            })
        };
        if let Some(spec) = self.find(namespace, selects) {
            add(&mut merged, spec.concurrency, &spec.environment_variables);
        }
        if let Some(probe) = self.registered(namespace, &merged) {
            merged.entry(PROBE).or_insert_with(|| json!(probe));
        }
        Value::Object(merged).to_string()
    }

    /// The probe of the group that a replica of this configuration registers with.
    fn registered(&self, namespace: &str, merged: &Map<String, Value>) -> Option<&'a ReadinessProbe> {
        let name = merged.get("proxyMetadata")?.get(REGISTERS)?.as_str()?;
        self.groups.get(&(namespace, name))?.probe.as_ref()
    }

    fn find(&self, namespace: &str, fits: impl Fn(&ProxyConfigResource) -> bool) -> Option<&'a ProxyConfigResource> {
        self.list.iter().find(|(own, spec)| *own == namespace && fits(spec)).map(|(_, spec)| *spec)
    }
}

fn selector(spec: &ProxyConfigResource) -> Option<&BTreeMap<Str, Str>> {
    spec.selector.as_ref().map(|selector| &selector.match_labels)
}

fn add(merged: &mut Map<String, Value>, concurrency: Option<i32>, variables: &BTreeMap<Str, Str>) {
    if let Some(concurrency) = concurrency {
        merge(merged, "concurrency".to_owned(), json!(concurrency));
    }
    if !variables.is_empty() {
        merge(merged, "proxyMetadata".to_owned(), json!(variables));
    }
}

/// Variables add to each other one by one; of anything else the later wins.
fn merge(merged: &mut Map<String, Value>, key: String, value: Value) {
    match (merged.get_mut(&key), value) {
        (Some(Value::Object(known)), Value::Object(new)) if key == "proxyMetadata" => known.extend(new),
        (_, value) => drop(merged.insert(key, value)),
    }
}

#[cfg(test)]
mod tests;
