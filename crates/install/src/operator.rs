//! IstioOperator documents: read, checked, merged over a profile, and turned into the values of charts.
//!
//! Owns: which document wins, what old fields became, and where the installation goes. Never renders. Pure.

mod check;
pub mod fields;
mod notice;
mod translate;

use meltemi_config::split_documents;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::check::fields;
pub use self::notice::{Findings, Notice};
use crate::merge::overlay;
use crate::{path, profile, yaml};

pub const API_VERSION: &str = "install.istio.io/v1alpha1";
pub const DEFAULT_NAMESPACE: &str = "istio-system";

/// A text with its name.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// What an installation is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// IstioOperator documents; later ones win.
    pub documents: Vec<Source>,
    /// `PATH=VALUE`, below `spec`; these win over documents.
    pub settings: Vec<String>,
    /// A profile that is a file, for the one that is named in the documents by its path.
    pub profile_file: Option<Source>,
    /// Notices are errors.
    pub strict: bool,
    /// What a running mesh has; it lies under what the documents say.
    pub adopted: Adopted,
}

/// Settings of a mesh that runs already.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    /// A MeshConfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Value>,
    /// `networks` of MeshNetworks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Value>,
}

impl Adopted {
    pub fn is_empty(&self) -> bool {
        self.mesh.is_none() && self.networks.is_none()
    }
}

/// An installation, as everything together says.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The name of the documents, by which objects are labelled.
    pub name: String,
    /// Where the control plane is.
    pub namespace: String,
    /// Absent for the default revision.
    pub revision: Option<String>,
    /// `components` of the `spec`.
    pub components: Value,
    /// Values for the charts.
    pub values: Value,
    pub notices: Vec<Notice>,
}

/// The documents and settings of a request, without a profile.
#[derive(Debug)]
pub struct Given {
    name: Option<String>,
    namespace: Option<String>,
    spec: Value,
    findings: Findings,
}

impl Given {
    /// Reads and checks what was given.
    pub fn read(request: &Request) -> Self {
        let mut given = Self { name: None, namespace: None, spec: json!({}), findings: Findings::default() };
        for document in &request.documents {
            given.findings.about(&document.name);
            given.add_document(&document.text);
        }
        given.findings.about("--set");
        let mut settings = json!({});
        for setting in &request.settings {
            if let Err(message) = set(&mut settings, &mut given.spec, setting) {
                given.findings.refuse("", message);
            }
        }
        check::check(&mut settings, &mut given.findings);
        overlay(&mut given.spec, &settings);
        given
    }

    /// What was found in it.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The profile that is asked for.
    pub fn profile(&self) -> &str {
        path::find(&self.spec, "profile").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or("default")
    }

    fn add_document(&mut self, text: &str) {
        let mut documents = Vec::new();
        for (line, part) in split_documents(text) {
            match yaml::read(part) {
                Ok(Value::Null) => {}
                Ok(document) => documents.push(document),
                Err(error) => return self.findings.refuse("", format!("from line {line}: {error}")),
            }
        }
        match &mut *documents {
            [] => {}
            [document] => self.add_operator(document),
            several => {
                let message = format!("holds {} documents; one IstioOperator a file is taken", several.len());
                self.findings.refuse("", message);
            }
        }
    }

    fn add_operator(&mut self, document: &mut Value) {
        let text = |at: &str| path::find(document, at).and_then(Value::as_str).map(str::to_owned);
        let (kind, version) = (text("kind"), text("apiVersion"));
        if kind.as_deref() != Some("IstioOperator") || version.as_deref() != Some(API_VERSION) {
            let found = format!("{} {}", version.unwrap_or_default(), kind.unwrap_or_default());
            return self.findings.refuse("", format!("is {:?}, not {API_VERSION} IstioOperator", found.trim()));
        }
        let (name, namespace) = (text("metadata.name"), text("metadata.namespace"));
        self.name = name.or(self.name.take());
        self.namespace = namespace.or(self.namespace.take());
        for key in document.as_object().into_iter().flat_map(|map| map.keys()) {
            if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&&**key) {
                let unknown = Notice::new(key, "is no field of an IstioOperator, and has no effect".to_owned());
                self.findings.notice(unknown);
            }
        }
        let mut spec = document.get_mut("spec").map(Value::take).unwrap_or_default();
        if spec.is_null() {
            return;
        }
        check::check(&mut spec, &mut self.findings);
        translate::modernise(&mut spec, &mut self.findings);
        overlay(&mut self.spec, &spec);
    }
}

/// What lies beneath is text, whatever it looks like.
const TEXTS: [&str; 2] = ["meshConfig.defaultConfig.proxyMetadata.", "values.meshConfig.defaultConfig.proxyMetadata."];

/// Lays one `PATH=VALUE` on the settings. A path into a list changes the list of the documents.
fn set(settings: &mut Value, spec: &mut Value, setting: &str) -> Result<(), String> {
    let (at, value) = setting.split_once('=').ok_or_else(|| format!("{setting:?}: not of the form PATH=VALUE"))?;
    let (at, value) = (at.trim(), value.trim());
    let steps = path::parse(at).map_err(|error| error.to_string())?;
    let into_list = steps.iter().any(|step| !matches!(step, path::Step::Key(_)));
    let top = match steps.first() {
        Some(path::Step::Key(key)) => key.clone(),
        _ => return Err(format!("{at}: begins with no name")),
    };
    if into_list && settings.get(&top).is_none() {
        settings[&top] = spec.get(&top).cloned().unwrap_or_default();
    }
    // Texts that look like numbers stay texts where only texts fit.
    let scalar = match check::fields().find(|(known, _)| *known == at).map(|(_, field)| field.shape) {
        Some(fields::Shape::Text) => Value::from(path::plain(value)),
        _ if TEXTS.iter().any(|texts| at.starts_with(texts)) => Value::from(path::plain(value)),
        _ => path::scalar(value),
    };
    path::set(settings, &steps, scalar).map_err(|error| error.to_string())
}

impl Operator {
    /// What the request comes to; or everything that is wrong with it.
    pub fn resolve(request: &Request) -> Result<Self, Vec<Notice>> {
        let mut given = Given::read(request);
        let named = given.profile().to_owned();
        let profile = profile::load(&named, request.profile_file.as_ref(), &mut given.findings);
        let mut spec = profile.unwrap_or_else(|| json!({}));
        let platform = [&given.spec, &spec].into_iter().find_map(|spec| path::find(spec, "values.global.platform"));
        let platform = platform.and_then(Value::as_str).unwrap_or_default().to_owned();
        profile::add_platform(&mut spec, &platform, &mut given.findings);
        overlay(&mut spec, &given.spec);
        let mut findings = given.findings;
        translate::into_values(&mut spec, &request.adopted, &mut findings);
        let given_namespace = given.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let namespace = match path::find(&spec, "values.global.istioNamespace").and_then(Value::as_str) {
            Some(namespace) if namespace != DEFAULT_NAMESPACE => namespace.to_owned(),
            _ => path::find(&spec, "namespace").and_then(Value::as_str).map_or(given_namespace, str::to_owned),
        };
        path::put(&mut spec, "values.global.istioNamespace", json!(namespace));
        let revision = path::find(&spec, "values.revision").and_then(Value::as_str).filter(|it| !it.is_empty());
        let revision = revision.map(str::to_owned);
        check_names(&namespace, revision.as_deref(), &mut findings);
        let name = given.name.unwrap_or_else(|| "unknown".to_owned());
        if path::find(&spec, "values.ownerName").and_then(Value::as_str).is_none_or(str::is_empty) {
            path::put(&mut spec, "values.ownerName", json!(name));
        }
        if request.strict {
            findings.errors.append(&mut findings.notices);
        }
        if !findings.errors.is_empty() {
            return Err(findings.errors);
        }
        let (components, values) = (spec["components"].take(), spec["values"].take());
        Ok(Self { name, namespace, revision, components, values, notices: findings.notices })
    }
}

/// Names become parts of other names and of URLs.
fn check_names(namespace: &str, revision: Option<&str>, findings: &mut Findings) {
    if !is_label(namespace) {
        findings.refuse("spec.namespace", format!("{namespace:?} is no name of a namespace"));
    }
    if let Some(revision) = revision.filter(|revision| !is_label(revision)) {
        let message = format!("{revision:?} is no DNS label: small letters, digits and dashes, at most 63");
        findings.refuse("spec.revision", message);
    }
}

/// RFC 1123's label.
pub fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| plain(c) || c == '-')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

#[cfg(test)]
mod tests;
