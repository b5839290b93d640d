//! Injectors and requests for tests.

use std::collections::BTreeMap;

use meltemi_config::mesh::MeshConfig;
use serde_json::Value;

use super::{Cluster, Environment, Injector, InjectorConfig, Node, Settings, templates, values};
use crate::admission::AdmissionRequest;

/// An injector with the default values and, unless the configuration has some, the default templates.
pub fn injector(config: &str) -> Injector {
    let mut config = InjectorConfig::parse(config).unwrap();
    if config.templates.is_empty() {
        config.templates = templates::built_in();
    }
    let settings = Settings {
        config,
        values: values::defaults(),
        mesh: MeshConfig::default(),
        revision: String::new(),
        environment: Environment::default(),
        compliance_policy: String::new(),
    };
    Injector::new(settings).unwrap()
}

pub fn request(pod: Value) -> AdmissionRequest {
    AdmissionRequest { namespace: "shop".to_owned(), object: pod, ..AdmissionRequest::default() }
}

/// Nothing is known of it.
pub struct NoCluster;

impl Cluster for NoCluster {
    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    fn namespace_annotations(&self, _: &str) -> Option<BTreeMap<String, String>> {
        None
    }

    fn proxy_configs(&self, _: &str, _: &str, _: &BTreeMap<String, String>) -> Vec<String> {
        Vec::new()
    }
}
