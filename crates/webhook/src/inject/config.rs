//! The injector's configuration: key `config` of the ConfigMap `istio-sidecar-injector`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{document, templates};

pub const SIDECAR: &str = "sidecar";

/// Whether pods that say nothing are injected (`policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    Enabled,
    Disabled,
}

/// Whether a pod's namespace and labels have it injected is decided by the webhook's selectors and by this.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InjectorConfig {
    pub policy: Policy,
    /// Templates of pods that name none.
    #[serde(default = "default_templates")]
    pub default_templates: Vec<String>,
    /// Go templates by name, each of a pod that is merged over the user's.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
    /// One name for several templates; not expanded again.
    #[serde(default, deserialize_with = "null_is_default")]
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Pods that are never injected unless they say so themselves. Wins over `always_inject_selector`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub never_inject_selector: Vec<LabelSelector>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub always_inject_selector: Vec<LabelSelector>,
    /// Put on every injected pod, over what it has.
    #[serde(default, deserialize_with = "null_is_default")]
    pub injected_annotations: BTreeMap<String, String>,
    /// What an injector of before `templates` would fail at; means nothing to this one.
    #[serde(default, rename = "template")]
    pub legacy_template: Option<serde::de::IgnoredAny>,
}

fn default_templates() -> Vec<String> {
    vec![SIDECAR.to_owned()]
}

/// Charts write an empty map as nothing at all.
fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `metav1.LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    #[serde(default)]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it says anything, and all that it says is so.
    pub fn selects(&self, labels: &dyn Fn(&str) -> Option<String>) -> bool {
        let is_empty = self.match_labels.is_empty() && self.match_expressions.is_empty();
        let has_all = self.match_labels.iter().all(|(key, value)| labels(key).as_ref() == Some(value));
        !is_empty
            && has_all
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels(&requirement.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<String>) -> bool {
        let is_among = value.as_ref().is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_among,
            Operator::NotIn => !is_among,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Default for InjectorConfig {
    fn default() -> Self {
        Self {
            policy: Policy::Enabled,
            default_templates: default_templates(),
            templates: templates::built_in(),
            aliases: BTreeMap::new(),
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
            injected_annotations: BTreeMap::new(),
            legacy_template: None,
        }
    }
}

impl InjectorConfig {
    /// # Errors
    /// When it is no YAML, or has a field or value that means nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = document::read(text).map_err(|error| error.to_string())?;
        if config.default_templates.is_empty() {
            config.default_templates = default_templates();
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
