//! Cases of Istio's own tests, held against what becomes of their objects here.
//!
//! Works on the texts of a case (its input, and what is expected of it) and of the surroundings that all cases share. Each
//! difference is a line or more for a reader; none means that the case passes.

mod compare;

use crate::{Catalogue, Converted, GatewayService, Services, Settings, convert, statuses, written};
use compare::{conversion, document_key, written_rule};
use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Document, Key, Kind, parse_documents, split_documents};
use meltemi_model::ObjectKey;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Completes the names of Services in every case.
pub const DOMAIN: &str = "domain.suffix";
/// On every namespace: the first part of its name.
const NAME_PART: &str = "istio.io/test-name-part";
/// Of the workload behind the first port of a service; behind the others there is none.
const WORKLOAD_PORT: u32 = 8080;
/// Stands for any time.
const TIME: &str = "fake";

/// A text of a case that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseError(String);

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaseError {}

fn wrong(what: &str) -> impl Fn(serde_saphyr::Error) -> CaseError {
    move |error| CaseError(format!("{what}: {error}"))
}

/// What is there besides the objects of a case.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    documents: Vec<Document>,
    services: BTreeMap<(String, String), GatewayService>,
}

impl Surroundings {
    /// From Kubernetes' documents, and a list of the registry's services.
    pub fn parse(objects: &str, services: &str) -> Result<Self, CaseError> {
        let mut out = Self { documents: parse_documents("objects", objects), services: BTreeMap::new() };
        let list: Value = serde_saphyr::from_str(services).map_err(wrong("services"))?;
        for (index, service) in list.as_array().into_iter().flatten().enumerate() {
            let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
            let (host, namespace) = (text("hostname"), text("namespace"));
            let port = service["ports"][0]["port"].as_u64().unwrap_or(80);
            // Hosts are looked up among ServiceEntries here, and in the registry there.
            let entry = format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: known-{index}, namespace: {namespace}}}\n\
                 spec: {{hosts: [{host}], ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: STATIC}}\n"
            );
            out.documents.extend(parse_documents("services", &entry));
            out.services.insert((namespace, host), registered(service));
        }
        Ok(out)
    }

    /// The objects of a case, with those around it. Each namespace that the case names is there.
    fn catalogue(&self, input: &str) -> Catalogue {
        let own = parse_documents("input", input);
        let named = own.iter().filter_map(|document| document.key.as_ref()).map(|key| &*key.namespace);
        let namespaces: BTreeSet<String> = named.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut catalogue = Catalogue::default();
        let made = namespaces.iter().flat_map(|name| namespace(name)).collect::<Vec<_>>();
        for document in self.documents.iter().chain(&own).chain(&made) {
            if let Some(object) = &document.object {
                catalogue.take(&object.key(), Some(object));
            }
        }
        catalogue
    }
}

fn registered(service: &Value) -> GatewayService {
    let number = |port: &Value| port["port"].as_u64().and_then(|port| u32::try_from(port).ok()).unwrap_or_default();
    let ports = service["ports"].as_array().into_iter().flatten().enumerate();
    let external = service["external_addresses"]["Kubernetes"].as_array().into_iter().flatten();
    GatewayService {
        ports: ports.map(|(i, port)| (number(port), vec![if i == 0 { WORKLOAD_PORT } else { 0 }])).collect(),
        external: external.filter_map(|address| address.as_str().map(str::to_owned)).collect(),
        ..GatewayService::default()
    }
}

fn namespace(name: &str) -> Vec<Document> {
    let part = name.split('-').next().unwrap_or_default();
    let text =
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{NAME_PART}: {part}}}}}\n");
    parse_documents("namespaces", &text)
}

impl Services for Surroundings {
    fn find(&self, namespace: &str, hostname: &str) -> Option<GatewayService> {
        self.services.get(&(namespace.to_owned(), hostname.to_owned())).cloned()
    }

    fn namespaces(&self, hostname: &str) -> Vec<String> {
        self.services.keys().filter(|(_, host)| host == hostname).map(|(namespace, _)| namespace.clone()).collect()
    }
}

fn settings() -> Settings {
    Settings::new(DOMAIN, &MeshConfig::default())
}

/// The documents of a text as plain values.
fn values(text: &str, what: &str) -> Result<Vec<Value>, CaseError> {
    split_documents(text).into_iter().map(|(_, part)| serde_saphyr::from_str(part).map_err(wrong(what))).collect()
}

/// How the statuses of a case's objects differ from the expected ones.
pub fn status_differences(around: &Surroundings, input: &str, expected: &str) -> Result<Vec<String>, CaseError> {
    let found = statuses(&around.catalogue(input), &settings(), around);
    let given = values(input, "input")?.into_iter();
    let given: BTreeMap<Key, Value> =
        given.filter_map(|document| Some((document_key(&document)?, document["status"].clone()))).collect();
    let mut differences = Vec::new();
    let mut wanted = BTreeSet::new();
    for document in values(expected, "expected status")? {
        let Some(key) = document_key(&document) else {
            differences.push(format!("a status of the unknown kind {}", document["kind"]));
            continue;
        };
        let before = given.get(&key).unwrap_or(&Value::Null);
        let own = found.get(&key).map_or(json!({}), |status| written(before, status, &key.namespace, TIME));
        let (own, other) = (timeless(own), timeless(document["status"].clone()));
        if own != other {
            differences.push(format!("status of {key}:\n    expected {other}\n    got      {own}"));
        }
        wanted.insert(key);
    }
    let extra = found.keys().filter(|key| !wanted.contains(key));
    differences.extend(extra.map(|key| format!("status of {key}: none expected")));
    Ok(differences)
}

/// A status without what differs from run to run, and without the features of a class, which istiod tells elsewhere.
fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("lastTransitionTime");
            map.remove("observedGeneration");
            map.remove("supportedFeatures");
            map.values_mut().for_each(|inner| *inner = timeless(inner.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| *inner = timeless(inner.take())),
        _ => {}
    }
    value
}

/// How what a case's objects become differs from the expected objects.
pub fn conversion_differences(around: &Surroundings, input: &str, expected: &str) -> Result<Vec<String>, CaseError> {
    let expected = values(expected, "expected")?;
    Ok(conversion(&objects(&convert(&around.catalogue(input), &settings())), &expected))
}

fn objects(converted: &Converted) -> BTreeMap<(Kind, ObjectKey), Value> {
    let gateways = converted.gateways.iter().map(|(key, own)| ((Kind::Gateway, key.clone()), written_rule(own)));
    let routes = converted.virtual_services.iter();
    let routes = routes.map(|(key, own)| ((Kind::VirtualService, key.clone()), written_rule(own)));
    let rules = converted.destination_rules.iter();
    let rules = rules.map(|(key, own)| ((Kind::DestinationRule, key.clone()), written_rule(own)));
    gateways.chain(routes).chain(rules).collect()
}
