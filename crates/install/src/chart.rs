//! The charts: one source for this program and for Helm.
//!
//! Owns: which files a chart has, and rendering them as Helm would. Files that other crates own (kinds of the API,
//! injection templates) are made into templates here. Pure.

mod functions;
mod generated;

use std::collections::BTreeMap;

use gotmpl::{Template, to_value};
use meltemi_config::split_documents;
use serde_json::{Value, json};
use thiserror::Error;

use crate::merge::overlay;
use crate::object::Object;
use crate::yaml;

/// Far more than the longest list of settings.
const MAX_ITERATIONS: u64 = 100_000;

/// A template that made something else than text of a manifest.
#[derive(Debug, Error)]
#[error("chart {chart}: {file}: {reason}")]
pub struct ChartError {
    pub chart: &'static str,
    pub file: String,
    pub reason: String,
}

/// What other crates have to say in charts.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// CustomResourceDefinitions.
    pub definitions: Vec<Value>,
    /// Injection templates by name.
    pub injection: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chart {
    Base,
    Istiod,
    Cni,
    Gateway,
}

/// Where a chart is rendered to.
#[derive(Debug, Clone)]
pub struct Release<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
}

macro_rules! files {
    ($chart:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../charts/", $chart, "/", $name)))),*]
    };
}

const BASE: &[(&str, &str)] = files!("base": "Chart.yaml", "values.yaml", "templates/validatingwebhook.yaml");
const ISTIOD: &[(&str, &str)] = files!("istiod":
    "Chart.yaml", "values.yaml", "templates/_names.tpl", "templates/autoscale.yaml", "templates/clusterrole.yaml",
    "templates/clusterrolebinding.yaml", "templates/configmap.yaml", "templates/deployment.yaml",
    "templates/mutatingwebhook.yaml", "templates/role.yaml", "templates/service.yaml",
    "templates/serviceaccount.yaml", "templates/validatingwebhook.yaml", "templates/values.yaml");
const CNI: &[(&str, &str)] = files!("cni":
    "Chart.yaml", "values.yaml", "templates/_names.tpl", "templates/daemonset.yaml", "templates/rbac.yaml");
const GATEWAY: &[(&str, &str)] = files!("gateway":
    "Chart.yaml", "values.yaml", "templates/_names.tpl", "templates/autoscale.yaml", "templates/deployment.yaml",
    "templates/service.yaml");

impl Chart {
    pub const ALL: [Self; 4] = [Self::Base, Self::Istiod, Self::Cni, Self::Gateway];

    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Istiod => "istiod",
            Self::Cni => "cni",
            Self::Gateway => "gateway",
        }
    }

    fn written(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Base => BASE,
            Self::Istiod => ISTIOD,
            Self::Cni => CNI,
            Self::Gateway => GATEWAY,
        }
    }

    /// Every file of the chart, by its path in the chart's folder.
    pub fn files(self, contents: &Contents) -> BTreeMap<String, String> {
        let mut files: BTreeMap<_, _> =
            self.written().iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        if let Ok(schema) = self.schema() {
            files.insert("values.schema.json".to_owned(), format!("{schema:#}\n"));
        }
        match self {
            Self::Base if !contents.definitions.is_empty() => {
                files.insert("templates/crds.yaml".to_owned(), generated::definitions(&contents.definitions));
            }
            Self::Istiod => {
                files.insert("templates/injector.yaml".to_owned(), generated::injector(&contents.injection));
            }
            _ => {}
        }
        files
    }

    /// The defaults of its values.
    pub fn defaults(self) -> Result<Value, ChartError> {
        let text = self.written().iter().find(|(name, _)| *name == "values.yaml").map_or("", |(_, text)| text);
        yaml::read(text).map_err(|reason| self.error("values.yaml", reason))
    }

    /// The objects that the chart comes to with `values` over its defaults, in the order of its files.
    pub fn render(self, release: &Release<'_>, values: &Value, contents: &Contents) -> Result<Vec<Object>, ChartError> {
        let mut merged = self.defaults()?;
        overlay(&mut merged, values);
        make_whole(&mut merged);
        let data = json!({
            "Values": merged,
            "Release": {"Name": release.name, "Namespace": release.namespace, "Service": "Helm"},
        });
        let data = to_value(&data).map_err(|error| self.error("values.yaml", error.to_string()))?;
        let files = self.files(contents);
        let shared: String = files.iter().filter(|(name, _)| name.ends_with(".tpl")).map(|(_, text)| &**text).collect();
        let mut objects = Vec::new();
        for (name, text) in files.iter().filter(|(name, _)| name.starts_with("templates/") && name.ends_with(".yaml")) {
            let template = functions::register(Template::new(self.name()).max_range_iters(MAX_ITERATIONS));
            let template = template.parse(&shared).and_then(|template| template.parse(text));
            let rendered = template.and_then(|template| template.execute_to_string(&data));
            let rendered = rendered.map_err(|error| self.error(name, error.to_string()))?;
            objects.extend(self.objects(name, &rendered)?);
        }
        Ok(objects)
    }

    fn objects(self, file: &str, text: &str) -> Result<Vec<Object>, ChartError> {
        // Helm would print nothing in its place.
        if text.contains("<no value>") || text.contains("<nil>") {
            return Err(self.error(file, "a value that is not there is printed".to_owned()));
        }
        let mut objects = Vec::new();
        for (line, part) in split_documents(text) {
            let value = yaml::read(part).map_err(|reason| self.error(file, format!("line {line}: {reason}")))?;
            if !value.is_null() {
                let object = Object::new(value).map_err(|reason| self.error(file, format!("line {line}: {reason}")))?;
                objects.push(object);
            }
        }
        Ok(objects)
    }

    fn error(self, file: &str, reason: String) -> ChartError {
        ChartError { chart: self.name(), file: file.to_owned(), reason }
    }
}

/// Numbers without a fraction as whole ones, as Go writes them.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(float) = whole {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(members) => members.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
