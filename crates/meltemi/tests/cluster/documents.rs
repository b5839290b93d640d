//! Documents of the cases.

/// A definition of a custom kind that takes any content, with a status of its own.
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
