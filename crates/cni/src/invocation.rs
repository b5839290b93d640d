//! What a runtime asks of the plugin, by its environment.
//!
//! Owns: the variables of the CNI specification, and Kubernetes' arguments among them.

use std::path::PathBuf;

use crate::failure::{Failure, Kind};

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Check,
    Delete,
    Collect,
    Status,
    Version,
}

/// A pod as the kubelet names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    /// Empty where the runtime does not tell.
    pub uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub verb: Verb,
    /// The container's network namespace; there for ADD and CHECK.
    pub namespace: PathBuf,
    /// None for a container that is no pod of Kubernetes.
    pub pod: Option<PodName>,
}

fn missing(variable: &str) -> Failure {
    Failure::new(Kind::Environment, format!("{variable}: not set in the environment"))
}

fn verb(text: &str) -> Option<Verb> {
    match text {
        "ADD" => Some(Verb::Add),
        "CHECK" => Some(Verb::Check),
        "DEL" => Some(Verb::Delete),
        "GC" => Some(Verb::Collect),
        "STATUS" => Some(Verb::Status),
        "VERSION" => Some(Verb::Version),
        _ => None,
    }
}

/// `IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b`.
fn pod(arguments: &str) -> Result<Option<PodName>, Failure> {
    let mut pod = PodName { namespace: String::new(), name: String::new(), uid: String::new() };
    let mut unknown = None;
    let mut tolerant = false;
    for pair in arguments.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::new(Kind::Environment, format!("CNI_ARGS: `{pair}` is no key=value")));
        };
        match key {
            "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
            "K8S_POD_NAME" => pod.name = value.to_owned(),
            "K8S_POD_UID" => pod.uid = value.to_owned(),
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            "IgnoreUnknown" => tolerant = matches!(value, "1" | "true" | "True" | "TRUE" | "t" | "T"),
            other => unknown = Some(other),
        }
    }
    if let Some(key) = unknown.filter(|_| !tolerant) {
        return Err(Failure::new(
            Kind::Environment,
            format!("CNI_ARGS: `{key}` is unknown, and IgnoreUnknown is not set"),
        ));
    }
    Ok((!pod.namespace.is_empty() && !pod.name.is_empty()).then_some(pod))
}

impl Invocation {
    /// Reads what `variable` finds in the environment.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Invocation, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let command = set("CNI_COMMAND").ok_or_else(|| missing("CNI_COMMAND"))?;
        let verb = verb(&command).ok_or_else(|| {
            let message = format!("CNI_COMMAND: `{command}` is none of ADD, CHECK, DEL, GC, STATUS, VERSION");
            Failure::new(Kind::Environment, message)
        })?;
        let needed: &[&str] = match verb {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Verb::Delete => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Verb::Collect | Verb::Status | Verb::Version => &[],
        };
        if let Some(name) = needed.iter().find(|name| set(name).is_none()) {
            return Err(missing(name));
        }
        let pod = match verb {
            Verb::Add | Verb::Check => pod(&variable("CNI_ARGS").unwrap_or_default())?,
            _ => None,
        };
        Ok(Invocation { verb, namespace: set("CNI_NETNS").unwrap_or_default().into(), pod })
    }
}
