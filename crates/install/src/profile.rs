//! Profiles: named beginnings of a `spec`, each laid over `default`.
//!
//! Owns: which there are. What is in them is data (`profiles/*.yaml`).

use serde_json::Value;

use crate::merge::overlay;
use crate::operator::{Findings, Notice, Source};
use crate::yaml;

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
    "preview": "the default, with what is on trial",
    "remote": "a cluster whose control plane is elsewhere",
    "stable": "the default, without what is on trial",
};

/// Names that stood for others once.
const RETIRED: [(&str, &str, &str); 2] = [
    ("production", "default", "there is no such profile: the default is meant for production"),
    ("sds", "default", "secrets always reach proxies through SDS"),
];

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
    if name == "ambient" {
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
