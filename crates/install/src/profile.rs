//! Profiles: named beginnings of a `spec`, each laid over `default`.
//!
//! Owns: which there are. What is in them is data (`profiles/*.yaml`).

use serde_json::Value;

use crate::merge::overlay;
use crate::operator::{Findings, Notice, Source};
use crate::{path, yaml};

macro_rules! profiles {
    ($($name:literal: $summary:literal,)*) => {
        &[$(Profile {
            name: $name,
            summary: $summary,
            text: include_str!(concat!("../profiles/", $name, ".yaml")),
        }),*]
    };
}

/// A profile that comes with the program.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    pub summary: &'static str,
    text: &'static str,
}

pub const PROFILES: &[Profile] = profiles! {
    "ambient": "the control plane and the CNI plugin, ready for waypoints",
    "default": "the control plane and an ingress gateway",
    "demo": "everything, in little room and with much to see",
    "empty": "nothing; what is wanted is switched on",
    "minimal": "the control plane alone",
    "openshift": "the default, as OpenShift needs it",
    "openshift-ambient": "the same as ambient, as OpenShift needs it",
    "preview": "the default, with what is on trial",
    "remote": "a cluster whose control plane is elsewhere",
    "stable": "the default, without what is on trial",
};

/// Names that stood for others once.
const RETIRED: [(&str, &str, &str); 2] = [
    ("production", "default", "there is no such profile: the default is meant for production"),
    ("sds", "default", "secrets always reach proxies through SDS"),
];

/// What a cluster of some make needs (`values.global.platform`), as paths below `values`. Everything that is said wins over it.
const PLATFORMS: &[(&str, &[(&str, &str)])] = &[
    ("gke", &[("cni.cniBinDir", "/home/kubernetes/bin")]),
    ("k3d", &[("cni.cniBinDir", "/bin"), ("cni.cniConfDir", "/var/lib/rancher/k3s/agent/etc/cni/net.d")]),
    (
        "k3s",
        &[
            ("cni.cniBinDir", "/var/lib/rancher/k3s/data/cni"),
            ("cni.cniConfDir", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
        ],
    ),
    (
        "microk8s",
        &[
            ("cni.cniBinDir", "/var/snap/microk8s/current/opt/cni/bin"),
            ("cni.cniConfDir", "/var/snap/microk8s/current/args/cni-network"),
        ],
    ),
    ("minikube", &[]),
    // As the profile of that name.
    ("openshift", &[]),
];

/// Lays what a platform needs over the `spec` of a profile.
pub(crate) fn add_platform(spec: &mut Value, platform: &str, findings: &mut Findings) {
    if platform.is_empty() {
        return;
    }
    findings.about("");
    let Some((name, values)) = PLATFORMS.iter().find(|(name, _)| *name == platform) else {
        let names: Vec<_> = PLATFORMS.iter().map(|(name, _)| *name).collect();
        let message = format!("{platform:?}: nothing is known of it; known are {}", names.join(", "));
        return findings.notice(Notice::new("spec.values.global.platform", message));
    };
    if *name == "openshift"
        && let Some(Ok(openshift)) = Profile::named(name).map(|profile| yaml::read(profile.text))
    {
        overlay(&mut spec["values"], openshift.get("values").unwrap_or(&Value::Null));
    }
    for (at, value) in *values {
        path::put(spec, &format!("values.{at}"), Value::from(*value));
    }
}

impl Profile {
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Its `spec`, over that of the default.
    pub fn spec(&self) -> Result<Value, String> {
        let mut spec = Value::Object(serde_json::Map::new());
        for profile in [Self::named("default"), Some(self)].into_iter().flatten() {
            overlay(&mut spec, &yaml::read(profile.text)?);
        }
        Ok(spec)
    }
}

/// The `spec` of the profile that a document names; a path is looked for in `file`.
pub(crate) fn load(name: &str, file: Option<&Source>, findings: &mut Findings) -> Option<Value> {
    findings.about("");
    let name = match RETIRED.iter().find(|(retired, ..)| *retired == name) {
        Some((_, instead, why)) => {
            let message = format!("{name:?}: {why}; {instead:?} is taken");
            findings.notice(Notice::new("spec.profile", message));
            *instead
        }
        None => name,
    };
    let spec = match (Profile::named(name), file) {
        (Some(profile), _) => profile.spec(),
        (None, Some(file)) if file.name == name => read_file(file),
        (None, _) => {
            let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
            Err(format!("{name:?}: one of {}, or a file", names.join(", ")))
        }
    };
    if matches!(name, "ambient" | "openshift-ambient") {
        let message = "the node proxy of ambient mode is not installed by this version".to_owned();
        findings.notice(Notice::new("spec.profile", message));
    }
    spec.map_err(|message| findings.refuse("spec.profile", message)).ok()
}

/// A profile of the user's own: an IstioOperator over the default.
fn read_file(file: &Source) -> Result<Value, String> {
    let document = yaml::read(&file.text).map_err(|error| format!("{}: {error}", file.name))?;
    let default = Profile::named("default").ok_or("no profile \"default\"")?;
    let mut spec = default.spec()?;
    overlay(&mut spec, document.get("spec").unwrap_or(&Value::Null));
    Ok(spec)
}

#[cfg(test)]
mod tests;
