//! Metrics of the application, which Prometheus gets from the agent together with the proxy's.

use meltemi_config::mesh::MeshConfig;
use serde_json::{Map, Value, json};

use super::annotations::parse_bool;
use super::{InjectError, names, pod, shape};

/// What the agent is told of the application's metrics.
const SCRAPING: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
const SECURE_PORT: &str = "ENVOY_SECURE_MERGED_METRICS_PORT";

const PATH: &str = "prometheus_io_path";
const PORT: &str = "prometheus_io_port";
const SCRAPE: &str = "prometheus_io_scrape";
const TARGETS: &str = "prometheus_istio_io_scrape_targets";

/// Ports that are not the application's, and what they are.
const RESERVED: [(u16, &str); 9] = [
    (15000, "Envoy admin"),
    (15001, "outbound traffic capture"),
    (15004, "pilot debug"),
    (15006, "inbound traffic capture"),
    (15008, "HBONE tunnel"),
    (15020, "pilot-agent status / merged Prometheus"),
    (15021, "Envoy health"),
    (15053, "DNS proxy"),
    (15090, "Envoy Prometheus (already merged)"),
];

/// Prometheus takes `prometheus.io/port`, `prometheus.io.port` and the like for one.
fn sanitized(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

fn given(pod: &Value, wanted: &str) -> Option<String> {
    let annotations = pod["metadata"]["annotations"].as_object()?;
    let (_, value) = annotations.iter().find(|(name, _)| sanitized(name) == wanted)?;
    value.as_str().map(str::to_owned)
}

fn clear(annotations: &mut Map<String, Value>) {
    annotations.retain(|name, _| ![PATH, PORT, SCRAPE, TARGETS].contains(&sanitized(name).as_str()));
}

/// Takes away what an earlier injection set.
pub fn strip(pod: &mut Value, status_port: i32) {
    if given(pod, PORT) == Some(status_port.to_string()) {
        clear(pod::metadata_map(pod, "annotations"));
    }
}

/// Has Prometheus ask the agent, and the agent what Prometheus was to ask.
pub fn merge(pod: &mut Value, mesh: &MeshConfig) -> Result<(), InjectError> {
    let status_port = mesh.default_config.status_port.to_string();
    let is_scraped = given(pod, SCRAPE).and_then(|value| parse_bool(&value)).unwrap_or(true);
    let said = pod::annotation(pod, names::MERGE_METRICS).and_then(parse_bool);
    let is_ours = given(pod, PORT).is_some_and(|port| port == status_port);
    if !is_scraped || is_ours || !said.unwrap_or(mesh.enable_prometheus_merge) {
        return Ok(());
    }
    let scraping = Scraping::of(pod);
    scraping.check(&status_port)?;
    if let Some(proxy) = pod::container_mut(pod, names::PROXY_CONTAINER).filter(|_| !scraping.is_empty()) {
        pod::append_variable(proxy, SCRAPING, scraping.text());
    }
    let annotations = pod::metadata_map(pod, "annotations");
    clear(annotations);
    for (name, value) in [("port", &*status_port), ("path", "/stats/prometheus"), ("scrape", "true")] {
        annotations.insert(format!("prometheus.io/{name}"), json!(value));
    }
    Ok(())
}

/// Where the application's metrics are.
struct Scraping {
    scrape: String,
    path: String,
    port: String,
    targets: Vec<(String, String)>,
}

impl Scraping {
    fn of(pod: &Value) -> Self {
        let text = |name: &str| given(pod, name).unwrap_or_default();
        let targets = given(pod, TARGETS).map_or_else(Vec::new, |value| match targets(&value) {
            Ok(targets) => targets,
            Err(error) => {
                tracing::warn!(error, "annotation prometheus.istio.io/scrape-targets is not used");
                Vec::new()
            }
        });
        // Agents that know no targets ask the first.
        let (port, path) = targets.first().cloned().unwrap_or_else(|| (text(PORT), text(PATH)));
        Self { scrape: text(SCRAPE), path, port, targets }
    }

    fn is_empty(&self) -> bool {
        self.scrape.is_empty() && self.path.is_empty() && self.port.is_empty() && self.targets.is_empty()
    }

    fn check(&self, status_port: &str) -> Result<(), InjectError> {
        let wrong = |what: &str, reason: String| Err(InjectError::Prometheus(format!("{what}: {reason}")));
        if self.targets.is_empty() {
            if self.port.is_empty() {
                return Ok(());
            }
            return application_port(&self.port, status_port, "").or_else(|reason| wrong("configuration", reason));
        }
        let mut ports = self.targets.iter().map(|(port, _)| port);
        ports
            .try_for_each(|port| application_port(port, status_port, "target "))
            .or_else(|reason| wrong("targets", reason))
    }

    fn text(&self) -> String {
        let mut value = json!({ "scrape": self.scrape, "path": self.path, "port": self.port });
        if !self.targets.is_empty() {
            let targets = self.targets.iter().map(|(port, path)| json!({ "port": port, "path": path }));
            value["targets"] = targets.collect();
        }
        shape::go_text(&value)
    }
}

/// `port[:path]`, separated by commas.
fn targets(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (port, path) = entry.split_once(':').map_or((entry, ""), |(port, path)| (port.trim(), path.trim()));
            match port {
                "" => Err(format!("empty port in scrape target {entry:?}")),
                port => Ok((port.to_owned(), if path.is_empty() { "/metrics" } else { path }.to_owned())),
            }
        })
        .collect()
}

fn application_port(text: &str, status_port: &str, what: &str) -> Result<(), String> {
    let number = text.parse::<u16>().ok().filter(|port| *port > 0);
    let Some(number) = number else { return Err(format!("invalid {what}port {text:?}")) };
    if number.to_string() == status_port {
        return Err(format!("{what}port {text} conflicts with agent port"));
    }
    match RESERVED.iter().find(|(port, _)| *port == number) {
        Some((_, reason)) => Err(format!("{what}port {text} is reserved for Istio ({reason}) and cannot be scraped")),
        None => Ok(()),
    }
}

/// A port for metrics under mTLS, set by a variable of the proxy, is announced to Prometheus.
pub fn announce_secure_port(pod: &mut Value) {
    if given(pod, "prometheus_istio_io_secure_port").is_some() {
        return;
    }
    let proxy = pod::container(pod, names::PROXY_CONTAINER);
    let variables = proxy.and_then(|proxy| proxy["env"].as_array()).map(Vec::as_slice).unwrap_or_default();
    let is_set = |value: &&str| !value.is_empty() && *value != "0";
    let port = variables
        .iter()
        .filter(|variable| variable["name"] == SECURE_PORT)
        .find_map(|variable| variable["value"].as_str().filter(is_set));
    if let Some(port) = port.map(str::to_owned) {
        pod::metadata_map(pod, "annotations").insert(names::SECURE_PORT.to_owned(), json!(port));
    }
}

#[cfg(test)]
mod tests;
