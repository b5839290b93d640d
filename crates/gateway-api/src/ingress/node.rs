//! Where gateways are reached that no Service names (`ingressService` is empty): on the nodes of their pods.

use super::IngressSettings;
use meltemi_config::kube::{KubeNode, Pod};
use meltemi_config::{Object, Str};

const EXTERNAL: &str = "ExternalIP";
const RUNNING: &str = "Running";

/// The external addresses of one node, as istiod tells them: that of the first running pod of a gateway, in the order of `pods`, whose
/// node is known. Empty where a Service is named.
pub fn node_addresses<'a>(
    settings: &IngressSettings,
    pods: impl Iterator<Item = &'a Object>,
    node: impl Fn(&str) -> Option<&'a Object>,
) -> Vec<Str> {
    if !settings.service.is_empty() {
        return Vec::new();
    }
    let selector = settings.selector();
    let is_gateway = |object: &&Object| {
        let labels = &object.meta.labels;
        object.meta.namespace == settings.namespace
            && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let running = pods.filter(is_gateway).filter_map(|object| object.spec_as::<Pod>());
    let running = running.filter(|pod| *pod.status.phase == *RUNNING);
    let mut nodes = running.filter_map(|pod| node(&pod.spec.node_name)?.spec_as::<KubeNode>());
    let mut found: Vec<Str> = Vec::new();
    for address in nodes.next().into_iter().flat_map(|node| &node.status.addresses) {
        let is_new = !address.address.is_empty() && !found.contains(&address.address);
        if *address.address_type == *EXTERNAL && is_new {
            found.push(address.address.clone());
        }
    }
    found
}
