//! Documents of the cases.

use serde_json::{Value, json};

/// Our own definition of a kind of Istio's: `virtualservices.networking.istio.io`.
pub fn ours(name: &str) -> String {
    definition_of(name).to_string()
}

/// Our own, as it was before it had this version.
pub fn ours_without(name: &str, version: &str) -> String {
    let mut definition = definition_of(name);
    let versions = definition["spec"]["versions"].as_array_mut().expect("versions");
    versions.retain(|one| one["name"] != version);
    let stored = versions.iter().any(|one| one["storage"] == true);
    if !stored {
        versions[0]["storage"] = json!(true);
    }
    definition.to_string()
}

fn definition_of(name: &str) -> Value {
    let all = meltemi_config::crd::custom_resource_definitions();
    all.into_iter().find(|one| one["metadata"]["name"] == name).expect("a definition of ours")
}

/// A definition of a kind of others that takes any content, with a status of its own.
pub fn definition(group: &str, kind: &str, plural: &str, versions: &[&str], scope: &str) -> String {
    let mut text = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata:\n  name: {plural}.{group}\n  annotations: {{api-approved.kubernetes.io: \"unapproved, a test\"}}\n\
         spec:\n  group: {group}\n  scope: {scope}\n  names: {{kind: {kind}, plural: {plural}, singular: {}}}\n  versions:\n",
        kind.to_lowercase()
    );
    for (number, version) in versions.iter().enumerate() {
        text += &format!(
            "  - name: {version}\n    served: true\n    storage: {}\n    subresources: {{status: {{}}}}\n    schema:\n      \
             openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}\n",
            number == 0
        );
    }
    text
}

/// A Service without selector, and one slice of endpoints.
pub fn service(namespace: &str, name: &str, addresses: &[&str]) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n---\n{}",
        slice(namespace, name, addresses)
    )
}

pub fn slice(namespace: &str, name: &str, addresses: &[&str]) -> String {
    let endpoints: String = addresses
        .iter()
        .map(|address| format!("- {{addresses: [{address}], conditions: {{ready: true}}}}\n"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  namespace: {namespace}\n  \
         labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\n\
         endpoints:\n{endpoints}"
    )
}
