//! A container's environment: what its manifest says, with ConfigMaps, Secrets and the downward API filled in.

use std::collections::BTreeMap;

use meltemi_config::kube::{ConfigMap, Container, EnvFromSource, EnvVar, EnvVarSource, PodTemplate, Secret};
use meltemi_config::{Object, Spec};

/// A value that is known now, or only once the replica has a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum EnvValue {
    Text(String),
    PodName,
    PodAddress,
    HostAddress,
}

/// The ConfigMaps and Secrets by namespace and name.
#[derive(Default)]
pub(crate) struct Data<'a> {
    maps: BTreeMap<(&'a str, &'a str), &'a ConfigMap>,
    secrets: BTreeMap<(&'a str, &'a str), &'a Secret>,
}

/// The field below the container, and what is wrong with it.
type Wrong = (String, String);

impl<'a> Data<'a> {
    pub fn of(objects: &'a [Object]) -> Self {
        let mut data = Data::default();
        for object in objects {
            let name = (&*object.meta.namespace, &*object.meta.name);
            match &object.spec {
                Spec::ConfigMap(map) => drop(data.maps.insert(name, map)),
                Spec::Secret(secret) => drop(data.secrets.insert(name, secret)),
                _ => {}
            }
        }
        data
    }

    /// In the order of the manifest; a later entry wins over an earlier one of the same name.
    pub fn environment(
        &self,
        namespace: &str,
        template: &PodTemplate,
        container: &Container,
    ) -> Result<Vec<(String, EnvValue)>, Wrong> {
        let mut environment = Vec::new();
        for (index, from) in container.env_from.iter().enumerate() {
            let wrong = |message| (format!("envFrom[{index}]"), message);
            for (key, value) in self.all(namespace, from).map_err(wrong)? {
                environment.push((format!("{}{key}", from.prefix), EnvValue::Text(value)));
            }
        }
        for (index, variable) in container.env.iter().enumerate() {
            let wrong = |message| (format!("env[{index}].valueFrom"), message);
            if let Some(value) = self.value(namespace, template, variable).map_err(wrong)? {
                environment.push((variable.name.to_string(), value));
            }
        }
        Ok(environment)
    }

    fn all(&self, namespace: &str, from: &EnvFromSource) -> Result<Vec<(String, String)>, String> {
        if let Some(reference) = &from.config_map_ref {
            return match self.maps.get(&(namespace, &*reference.name)) {
                Some(map) => Ok(map.data.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()),
                None if reference.optional == Some(true) => Ok(Vec::new()),
                None => Err(format!("no ConfigMap `{}` in namespace `{namespace}`", reference.name)),
            };
        }
        let Some(reference) = &from.secret_ref else { return Ok(Vec::new()) };
        match self.secrets.get(&(namespace, &*reference.name)) {
            Some(secret) => {
                let keys = secret.data.keys().chain(secret.string_data.keys());
                let text = |key: &str| String::from_utf8_lossy(secret.value(key).unwrap_or_default()).into_owned();
                Ok(keys.map(|key| (key.to_string(), text(key))).collect())
            }
            None if reference.optional == Some(true) => Ok(Vec::new()),
            None => Err(format!("no Secret `{}` in namespace `{namespace}`", reference.name)),
        }
    }

    fn value(&self, namespace: &str, template: &PodTemplate, variable: &EnvVar) -> Result<Option<EnvValue>, String> {
        let Some(source) = &variable.value_from else { return Ok(Some(EnvValue::Text(variable.value.to_string()))) };
        if let Some(field) = &source.field_ref {
            return downward(namespace, template, &field.field_path).map(Some);
        }
        self.keyed(namespace, source)
    }

    fn keyed(&self, namespace: &str, source: &EnvVarSource) -> Result<Option<EnvValue>, String> {
        let (kind, reference, found) = if let Some(reference) = &source.config_map_key_ref {
            let map = self.maps.get(&(namespace, &*reference.name));
            ("ConfigMap", reference, map.and_then(|map| map.data.get(&reference.key)).map(ToString::to_string))
        } else if let Some(reference) = &source.secret_key_ref {
            let secret = self.secrets.get(&(namespace, &*reference.name));
            let bytes = secret.and_then(|secret| secret.value(&reference.key));
            ("Secret", reference, bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        } else {
            return Err("only fieldRef, configMapKeyRef and secretKeyRef are known here".to_owned());
        };
        match found {
            Some(text) => Ok(Some(EnvValue::Text(text))),
            None if reference.optional == Some(true) => Ok(None),
            None => {
                Err(format!("no {kind} `{}` with key `{}` in namespace `{namespace}`", reference.name, reference.key))
            }
        }
    }
}

fn downward(namespace: &str, template: &PodTemplate, path: &str) -> Result<EnvValue, String> {
    match path {
        "metadata.name" => Ok(EnvValue::PodName),
        "metadata.namespace" => Ok(EnvValue::Text(namespace.to_owned())),
        "spec.serviceAccountName" => Ok(EnvValue::Text(template.spec.effective_service_account().to_owned())),
        "spec.nodeName" => Ok(EnvValue::Text(crate::docs::NODE.to_owned())),
        "status.podIP" | "status.podIPs" => Ok(EnvValue::PodAddress),
        "status.hostIP" => Ok(EnvValue::HostAddress),
        other => match labelled(template, other) {
            Some(text) => Ok(EnvValue::Text(text)),
            None => Err(format!("field `{other}` is not known here")),
        },
    }
}

/// `metadata.labels['KEY']` or the same of annotations; a key that is not there is empty, as Kubernetes has it.
fn labelled(template: &PodTemplate, path: &str) -> Option<String> {
    let of = |map: &BTreeMap<meltemi_config::Str, meltemi_config::Str>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.get(key).map(ToString::to_string).unwrap_or_default())
    };
    let meta = &template.metadata;
    of(&meta.labels, "metadata.labels").or_else(|| of(&meta.annotations, "metadata.annotations"))
}

/// Replaces `$(NAME)` by the value of an earlier variable, as Kubernetes does; `$$` stands for `$`.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let named = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((value, tail)) = named.and_then(|(name, tail)| Some((known.get(name)?, tail))) {
            out.push_str(value);
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}
