//! Probes and lifecycle handlers of the application, of which the kubelet asks the agent instead: they would fail at mTLS.

use serde_json::{Map, Value, json};

use super::annotations::parse_bool;
use super::shape::{Shape, canonical, go_json, go_text};
use super::{names, pod};

/// What the agent asks the application, by the path that the kubelet asks the agent.
const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
const HANDLERS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];

/// Kinds of probes that the agent can make.
const ACTIONS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// `by_default` is `sidecarInjectorWebhook.rewriteAppHTTPProbe`.
pub fn rewrite(pod: &mut Value, by_default: bool, status_port: i32) {
    let said = pod::annotation(pod, names::REWRITE_PROBERS).and_then(parse_bool);
    if pod::container(pod, names::PROXY_CONTAINER).is_none() || !said.unwrap_or(by_default) {
        return;
    }
    resolve_named_ports(pod);
    let probers = probers(pod, status_port);
    if !probers.is_empty() {
        let is_again = pod::annotation(pod, names::STATUS).is_some();
        tell(pod, probers, is_again);
    }
    // The annotation moves what the kubelet asks, not what is known to ask the agent already.
    let said = pod::annotation(pod, names::STATUS_PORT).and_then(|port| port.trim().parse().ok());
    let asked = said.unwrap_or(status_port);
    each_probe(pod, |_, path, probe| ask_agent(probe, path, asked));
}

/// Calls `visit` with the container's ports, the path at the agent and the probe.
fn each_probe(pod: &mut Value, mut visit: impl FnMut(&[Value], &str, &mut Map<String, Value>)) {
    // As Istio: the ordinary containers first.
    for list in pod::LISTS {
        if pod::list(pod, list).is_empty() {
            continue;
        }
        for container in pod::list_mut(pod, list) {
            let name = pod::name_of(container).to_owned();
            let Some(container) = container.as_object_mut().filter(|_| name != names::PROXY_CONTAINER) else {
                continue;
            };
            let ports = container.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
            for (probe, path) in PROBES {
                if let Some(Value::Object(probe)) = container.get_mut(probe) {
                    visit(&ports, &format!("/app-health/{name}/{path}"), probe);
                }
            }
            let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") else { continue };
            for (handler, path) in HANDLERS {
                // Lifecycle handlers have no gRPC.
                if let Some(Value::Object(handler)) = lifecycle.get_mut(handler) {
                    visit(&ports, &format!("/app-lifecycle/{name}/{path}"), handler);
                }
            }
        }
    }
}

/// The agent does not know the names of ports.
fn resolve_named_ports(pod: &mut Value) {
    each_probe(pod, |ports, _, probe| {
        let Some(Value::Object(action)) = action_of(probe).and_then(|action| probe.get_mut(action)) else { return };
        let named = action.get("port").and_then(Value::as_str).and_then(|name| {
            let port = ports.iter().rev().find(|port| port["name"] == name)?;
            port.get("containerPort").cloned()
        });
        action.extend(named.map(|port| ("port".to_owned(), port)));
    });
}

fn action_of(probe: &Map<String, Value>) -> Option<&'static str> {
    ACTIONS.into_iter().find(|action| probe.contains_key(*action))
}

/// What the agent is to ask, leaving out what asks it already and what names no port of its container.
fn probers(pod: &mut Value, status_port: i32) -> Map<String, Value> {
    let mut probers = Map::new();
    each_probe(pod, |_, path, probe| {
        let Some(action) = action_of(probe) else { return };
        let port = &probe[action]["port"];
        let is_number = port.is_number();
        if action != "grpc" && (!is_number || *port == json!(status_port)) {
            return;
        }
        let mut prober = Map::new();
        prober.insert(action.to_owned(), probe[action].clone());
        prober.extend(probe.get("timeoutSeconds").map(|timeout| ("timeoutSeconds".to_owned(), timeout.clone())));
        probers.insert(path.to_owned(), Value::Object(prober));
    });
    probers
}

/// Appends the variable; where the pod is injected again, joins it with what was there, which wins.
fn tell(pod: &mut Value, probers: Map<String, Value>, is_again: bool) {
    let Some(proxy) = pod::container_mut(pod, names::PROXY_CONTAINER) else { return };
    let variables = proxy.get_mut("env").and_then(Value::as_array_mut);
    let present = variables.and_then(|variables| variables.iter_mut().find(|variable| variable["name"] == PROBERS));
    match present.filter(|_| is_again) {
        Some(variable) => {
            let before = variable["value"].as_str().map(serde_json::from_str::<Map<String, Value>>);
            match before {
                Some(Ok(before)) => {
                    let joined: Map<String, Value> = probers.into_iter().chain(before).collect();
                    variable["value"] = json!(text(&joined));
                }
                Some(Err(error)) => tracing::error!(%error, "{PROBERS} of the earlier injection stays as it is"),
                None => variable["value"] = json!(text(&probers)),
            }
        }
        None => pod::append_variable(proxy, PROBERS, text(&probers)),
    }
}

fn text(probers: &Map<String, Value>) -> String {
    let mut entries: Vec<_> = probers.iter().collect();
    entries.sort_by_key(|(path, _)| *path);
    let entries = entries.into_iter().map(|(path, prober)| {
        let prober = canonical(prober, Shape::named("Probe"));
        format!("{}:{}", go_text(&json!(path)), go_json(&prober, Shape::named("Probe")))
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

/// Every kind of probe becomes an HTTP one, of the agent.
fn ask_agent(probe: &mut Map<String, Value>, path: &str, status_port: i32) {
    let Some(action) = action_of(probe) else { return };
    if path.starts_with("/app-lifecycle/") && action == "grpc" {
        return;
    }
    let mut http = match probe.shift_remove(action) {
        Some(Value::Object(http)) if action == "httpGet" => http,
        _ => Map::new(),
    };
    http.insert("path".to_owned(), json!(path));
    http.insert("port".to_owned(), json!(status_port));
    if http.get("scheme").is_some_and(|scheme| scheme == "HTTPS") {
        // It is the agent that speaks TLS.
        http.insert("scheme".to_owned(), json!("HTTP"));
    }
    probe.insert("httpGet".to_owned(), Value::Object(http));
}

#[cfg(test)]
mod tests;
