//! A case of injection, in the format of `peer/inject`: documents in, documents expected, by the command and by the webhook.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::split_documents;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::manifest::{Nodes, is_injectable};
use super::values::{Installation, lay_over};
use super::{Cluster, Injector, InjectorConfig, NativeSidecars, Node, Outcome, Platform, Settings};
use super::{document, mesh, names};
use crate::admission::AdmissionRequest;

/// Differences that are told of one document.
const MAX_DIFFERENCES: usize = 20;
/// The namespace that the cluster of the cases has, and the range of its users.
const NAMESPACE: &str = "test-ns";
const RANGE: &str = "1000620000/10000";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Case {
    name: String,
    test: String,
    source: String,
    input: String,
    expected: Option<String>,
    set_flags: Vec<String>,
    operator_file: Option<String>,
    mesh_config: Value,
    features: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    expected_error: Option<String>,
    expected_log: Option<String>,
    skip_webhook: bool,
    skip_kube_inject: bool,
    node_kubelet_versions: Vec<String>,
}

/// What is not as the case in a folder expects; nothing, when it passes.
///
/// # Errors
/// When the case cannot be read, or asks for what cannot be played.
pub fn play(folder: &Path) -> Result<Vec<String>, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let text = read("case.yaml")?;
    let case: Case = document::read(&text).map_err(|error| format!("case.yaml: {error}"))?;
    let operator = match &case.operator_file {
        Some(name) => document::value(&read(name)?).map_err(|error| format!("{name}: {error}"))?,
        None => json!({}),
    };
    let input = read(&case.input)?;
    let expected = case.expected.as_deref().map(read).transpose()?;
    case.play(&operator, &input, expected.as_deref())
}

impl Case {
    fn play(&self, operator: &Value, input: &str, expected: Option<&str>) -> Result<Vec<String>, String> {
        let native_sidecars = NativeSidecars::parse(self.variable("ENABLE_NATIVE_SIDECARS"))?;
        let versions = self.node_kubelet_versions.iter().zip(1..);
        let node = |(version, number): (&String, i32)| Node {
            name: format!("node-{number}"),
            kubelet_version: version.clone(),
        };
        let nodes = Nodes { native_sidecars, nodes: versions.map(node).collect() };
        let mut problems = Vec::new();
        if !self.skip_kube_inject {
            problems.extend(self.play_command(operator, input, expected, &nodes)?);
        }
        if let Some(expected) = expected.filter(|_| !self.skip_webhook && self.expected_error.is_none()) {
            problems.extend(self.play_webhook(operator, input, expected, nodes)?);
        }
        Ok(problems)
    }

    /// Of the control plane.
    fn variable(&self, name: &str) -> &str {
        self.features.get(name).or_else(|| self.env.get(name)).map_or("", String::as_str)
    }

    fn injector(&self, operator: &Value, revision: &str) -> Result<Injector, String> {
        // Images as the expected documents name them.
        let mut spec = json!({ "values": { "global": {
            "hub": "registry.istio.io/testing",
            "tag": "latest",
            "proxy": { "image": "proxyv2" },
            "proxy_init": { "image": "proxyv2" },
        } } });
        lay_over(&mut spec, &operator["spec"]);
        let installation = Installation::new(&spec, &self.set_flags).map_err(|error| error.to_string())?;
        let config = InjectorConfig::parse(&installation.injector_config().to_string())?;
        let patched = |mesh: &MeshConfig, patch: &Value| mesh::patched(mesh, patch).map_err(|error| error.to_string());
        let mut mesh = patched(&MeshConfig::default(), &installation.mesh)?;
        if self.mesh_config.is_object() {
            mesh = patched(&mesh, &self.mesh_config)?;
        }
        let settings = Settings {
            config,
            values: installation.values,
            mesh,
            revision: revision.to_owned(),
            environment: Arc::new(self.env.clone()),
            compliance_policy: self.variable("COMPLIANCE_POLICY").to_owned(),
        };
        Injector::new(settings).map_err(|error| error.to_string())
    }

    fn play_command(
        &self,
        operator: &Value,
        input: &str,
        expected: Option<&str>,
        nodes: &Nodes,
    ) -> Result<Vec<String>, String> {
        let injector = self.injector(operator, "");
        let injected =
            injector.and_then(|injector| injector.inject_documents(input, nodes).map_err(|error| error.to_string()));
        let injected = match injected {
            Ok(injected) => injected,
            Err(error) => {
                let is_expected = |wanted: &String| error.to_lowercase().contains(&wanted.to_lowercase());
                let as_expected = self.expected_error.as_ref().is_some_and(is_expected);
                return Ok(if as_expected { Vec::new() } else { vec![format!("kube-inject: {error}")] });
            }
        };
        if let Some(error) = &self.expected_error {
            return Ok(vec![format!("kube-inject: no error, where one with {error:?} is expected")]);
        }
        let mut problems = Vec::new();
        if let Some(wanted) = &self.expected_log
            && !injected.warnings.iter().any(|warning| warning.contains(wanted))
        {
            problems.push(format!("kube-inject: no warning with {wanted:?} among {:?}", injected.warnings));
        }
        let (ours, theirs) = (documents(&injected.text)?, documents(expected.unwrap_or_default())?);
        compare_all("kube-inject", &ours, &theirs, &mut problems);
        Ok(problems)
    }

    fn play_webhook(&self, operator: &Value, input: &str, expected: &str, nodes: Nodes) -> Result<Vec<String>, String> {
        let injector = self.injector(operator, "default")?;
        let is_openshift = self.variable("PLATFORM") == "openshift";
        let platform = Platform { native_sidecars: nodes.native_sidecars, is_openshift };
        let cluster = CaseCluster(nodes.nodes);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for document in injectable(documents(input)?) {
            let pod = pod_of(&document);
            let injected = webhook(&injector, &pod, &document["metadata"]["namespace"], platform, &cluster)?;
            ours.push(comparable(injected));
        }
        for document in injectable(documents(expected)?) {
            theirs.push(comparable(pod_of(&document)));
        }
        let mut problems = Vec::new();
        compare_all("webhook", &ours, &theirs, &mut problems);
        for pod in &ours {
            problems.extend(wrong_maps(pod));
        }
        Ok(problems)
    }
}

/// The pod after the webhook's patch.
fn webhook(
    injector: &Injector,
    pod: &Value,
    namespace: &Value,
    platform: Platform,
    cluster: &dyn Cluster,
) -> Result<Value, String> {
    let request = AdmissionRequest {
        namespace: namespace.as_str().unwrap_or_default().to_owned(),
        object: pod.clone(),
        ..AdmissionRequest::default()
    };
    let mut pod = pod.clone();
    match injector.review(&request, "", platform, cluster) {
        Ok(Outcome::Skipped) => Ok(pod),
        Ok(Outcome::Injected(patch)) => {
            let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|error| error.to_string())?;
            json_patch::patch(&mut pod, &patch)
                .map_err(|error| format!("webhook: the patch does not apply: {error}"))?;
            Ok(pod)
        }
        Err(error) => Err(format!("webhook: {error}")),
    }
}

struct CaseCluster(Vec<Node>);

impl Cluster for CaseCluster {
    fn nodes(&self) -> Vec<Node> {
        self.0.clone()
    }

    fn namespace_annotations(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let names = ["openshift.io/sa.scc.uid-range", "openshift.io/sa.scc.supplemental-groups"];
        (namespace == NAMESPACE).then(|| names.map(|name| (name.to_owned(), RANGE.to_owned())).into())
    }

    fn proxy_configs(&self, _: &str, _: &str, _: &BTreeMap<String, String>) -> Vec<String> {
        Vec::new()
    }
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    let parts = split_documents(text).into_iter();
    let values =
        parts.map(|(line, part)| document::value(part).map_err(|error| format!("document at line {line}: {error}")));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Ok(values
        .into_iter()
        .filter(|value| value.as_object().is_none_or(|map| !map.is_empty()))
        .map(without_nulls)
        .collect())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Documents that make pods, those in lists too.
fn injectable(documents: Vec<Value>) -> Vec<Value> {
    let items = documents.into_iter().flat_map(|mut document| match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => vec![document],
    });
    items.filter(|document| is_injectable(document) && document["kind"] != "List").collect()
}

/// The pod that a controller would make of a document.
fn pod_of(document: &Value) -> Value {
    let kind = document["kind"].as_str().unwrap_or_default();
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    if kind == "Pod" {
        return without_kind(document);
    }
    let template = if kind == "CronJob" {
        &document["spec"]["jobTemplate"]["spec"]["template"]
    } else {
        &document["spec"]["template"]
    };
    let mut pod = json!({ "metadata": template["metadata"], "spec": template["spec"] });
    let (api_version, kind, owner) = match kind {
        "Deployment" => {
            pod["metadata"]["labels"]["pod-template-hash"] = json!("fake");
            (json!("apps/v1"), "ReplicaSet", format!("{name}-fake"))
        }
        _ => (document["apiVersion"].clone(), kind, name.to_owned()),
    };
    let dash = if document["kind"] == "Deployment" { "-" } else { "" };
    pod["metadata"]["generateName"] = json!(format!("{owner}{dash}"));
    pod["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": api_version, "kind": kind, "name": owner, "uid": "", "controller": true }]);
    pod
}

fn without_kind(pod: &Value) -> Value {
    json!({ "metadata": pod["metadata"], "spec": pod["spec"] })
}

/// A pod without what differs between the two ways of injecting it.
fn comparable(pod: Value) -> Value {
    let mut pod = super::shape::canonical(&pod, super::shape::Shape::pod());
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.shift_remove(names::STATUS);
    }
    for list in super::pod::LISTS {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for variable in container["env"].as_array_mut().into_iter().flatten() {
                if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef").and_then(Value::as_object_mut) {
                    field.shift_remove("apiVersion");
                }
            }
        }
    }
    without_nulls(pod)
}

/// Variables that are to be maps of texts, and are not.
fn wrong_maps(pod: &Value) -> Vec<String> {
    let containers = super::pod::LISTS.iter().flat_map(|list| super::pod::list(pod, list));
    let variables = containers.flat_map(|container| container["env"].as_array().into_iter().flatten());
    let maps =
        variables.filter(|variable| variable["name"].as_str().is_some_and(|name| name.starts_with("ISTIO_METAJSON_")));
    let wrong = maps.filter(|variable| {
        let text = variable["value"].as_str().unwrap_or_default();
        serde_json::from_str::<BTreeMap<String, String>>(text).is_err()
    });
    wrong.map(|variable| format!("webhook: {} is no map of texts", variable["name"])).collect()
}

/// In what two documents differ, by path.
#[cfg(test)]
pub(super) fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    compare("", ours, theirs, &mut differences);
    differences
}

fn compare_all(way: &str, ours: &[Value], theirs: &[Value], problems: &mut Vec<String>) {
    if ours.len() != theirs.len() {
        problems.push(format!("{way}: {} documents, where {} are expected", ours.len(), theirs.len()));
    }
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let mut differences = Vec::new();
        compare(&format!("[{number}]"), ours, theirs, &mut differences);
        let more = differences.len().saturating_sub(MAX_DIFFERENCES);
        problems.extend(differences.into_iter().take(MAX_DIFFERENCES).map(|difference| format!("{way}: {difference}")));
        if more > 0 {
            problems.push(format!("{way}: [{number}]: {more} more differences"));
        }
    }
}

fn compare(path: &str, ours: &Value, theirs: &Value, differences: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in ours {
                match theirs.get(name) {
                    Some(other) => compare(&format!("{path}.{name}"), value, other, differences),
                    None => differences.push(format!("{path}.{name}: {value}, where nothing is expected")),
                }
            }
            let missing = theirs.iter().filter(|(name, _)| !ours.contains_key(*name));
            differences
                .extend(missing.map(|(name, value)| format!("{path}.{name}: missing, where {value} is expected")));
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (position, (value, other)) in ours.iter().zip(theirs).enumerate() {
                compare(&format!("{path}[{position}]"), value, other, differences);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if are_named(ours) && are_named(theirs) => {
            compare(path, &by_name(ours), &by_name(theirs), differences);
        }
        _ if ours == theirs => {}
        _ => differences.push(format!("{path}: {ours}, where {theirs} is expected")),
    }
}

/// Whether every item has a name, and no two the same.
fn are_named(items: &[Value]) -> bool {
    let names: BTreeSet<&str> = items.iter().filter_map(|item| item["name"].as_str()).collect();
    names.len() == items.len()
}

fn by_name(items: &[Value]) -> Value {
    items.iter().map(|item| (super::pod::name_of(item).to_owned(), item.clone())).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests;
