//! The values that templates see as `.Values`: the defaults, and what an IstioOperator and `--set` flags make of them.
//!
//! In the shape of key `values` of the ConfigMap `istio-sidecar-injector`, which is part of the charts' values. Pure.

use serde_json::{Map, Value, json};

/// Where images are, unless `global.hub` says so.
pub const HUB: &str = "meltemi";
/// Which of them, unless `global.tag` says so.
pub const TAG: &str = env!("CARGO_PKG_VERSION");
/// Holds the proxy, its agent and the rules of capture (`global.proxy.image`, `global.proxy_init.image`).
pub const IMAGE: &str = "meltemi";

/// Keys of the charts' values that templates may use, beside `pilot` and `gateways`, of which a part.
const SCOPE: [&str; 3] = ["global", "sidecarInjectorWebhook", "revision"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    #[error("could not parse configuration values: {0}")]
    Syntax(String),
    #[error("--set {0:?}: not of the form path=value")]
    Flag(String),
    #[error("--set {flag:?}: {at} is not a map")]
    NotAMap { flag: String, at: String },
}

/// Values of an installation where nobody has changed anything.
#[must_use]
pub fn defaults() -> Value {
    json!({
        "global": global(),
        "sidecarInjectorWebhook": {
            "alwaysInjectSelector": [],
            "defaultTemplates": [],
            "enableNamespacesByDefault": false,
            "injectedAnnotations": {},
            "neverInjectSelector": [],
            "reinvocationPolicy": "Never",
            "rewriteAppHTTPProbe": true,
            "templates": {},
        },
        "revision": "",
        "pilot": { "cni": { "enabled": false, "provider": "default" }, "env": {} },
        "gateways": { "securityContext": {}, "seccompProfile": {} },
    })
}

fn global() -> Value {
    json!({
        "caAddress": "",
        "caName": "",
        "configValidation": true,
        "hub": HUB,
        "imagePullPolicy": "",
        "imagePullSecrets": [],
        "istioNamespace": "istio-system",
        "logAsJson": false,
        "logging": { "level": "default:info" },
        "meshID": "",
        "mountMtlsCerts": false,
        "multiCluster": { "clusterName": "" },
        "nativeNftables": false,
        "network": "",
        "pilotCertProvider": "istiod",
        "proxy": proxy(),
        "proxy_init": { "forceApplyIptables": false, "image": IMAGE },
        "sds": { "token": { "aud": "istio-ca" } },
        "sts": { "servicePort": 0 },
        "tag": TAG,
        "variant": "",
    })
}

fn proxy() -> Value {
    json!({
        "autoInject": "enabled",
        "clusterDomain": "cluster.local",
        "componentLogLevel": "misc:error",
        "excludeIPRanges": "",
        "excludeInboundPorts": "",
        "excludeOutboundPorts": "",
        "image": IMAGE,
        "includeIPRanges": "*",
        "includeInboundPorts": "*",
        "includeOutboundPorts": "",
        "logLevel": "warning",
        "outlierLogPath": "",
        "privileged": false,
        "readinessFailureThreshold": 4,
        "readinessInitialDelaySeconds": 0,
        "readinessPeriodSeconds": 15,
        "resources": {
            "limits": { "cpu": "2000m", "memory": "1024Mi" },
            "requests": { "cpu": "100m", "memory": "128Mi" },
        },
        "seccompProfile": {},
        "startupProbe": { "enabled": true, "failureThreshold": 600 },
        "statusPort": 15020,
        "tracer": "none",
    })
}

/// What an IstioOperator says, with the flags laid over its `spec`.
#[derive(Debug, Clone, PartialEq)]
pub struct Installation {
    /// As the injector's ConfigMap has them.
    pub values: Value,
    /// Over the default mesh configuration; may be empty.
    pub mesh: Value,
}

impl Installation {
    /// # Errors
    /// When a flag has no `=`, or goes below what is not a map.
    pub fn new(spec: &Value, flags: &[String]) -> Result<Self, ValuesError> {
        let mut spec = if spec.is_object() { spec.clone() } else { json!({}) };
        for flag in flags {
            set(&mut spec, flag)?;
        }
        let mut charts = defaults();
        let given = spec.get("values").cloned().unwrap_or_else(|| json!({}));
        for (from, to) in
            [("hub", ["global", "hub"].as_slice()), ("tag", &["global", "tag"]), ("revision", &["revision"])]
        {
            if let Some(value) = spec.get(from) {
                *at_path(&mut charts, to) = value.clone();
            }
        }
        let has_cni = spec["components"]["cni"]["enabled"] == true;
        *at_path(&mut charts, &["pilot", "cni", "enabled"]) = json!(has_cni);
        // The chart of the control plane has what is said of it at its root, where it may be said, too.
        let root: Map<String, Value> =
            ["cni", "env"].into_iter().filter_map(|key| Some((key.to_owned(), given.get(key)?.clone()))).collect();
        lay_over(at_path(&mut charts, &["pilot"]), &Value::Object(root));
        lay_over(&mut charts, &given);
        let mut mesh = mesh_of(&charts);
        for given in [&spec["values"]["meshConfig"], &spec["meshConfig"]] {
            lay_over(&mut mesh, given);
        }
        Ok(Self { values: scoped(&charts), mesh })
    }

    /// The injector's configuration (`config` of its ConfigMap), as these values make it.
    pub fn injector_config(&self) -> Value {
        let webhook = &self.values["sidecarInjectorWebhook"];
        let mut templates: Map<String, Value> =
            super::templates::built_in().into_iter().map(|(name, text)| (name, json!(text))).collect();
        templates.extend(webhook["templates"].as_object().cloned().unwrap_or_default());
        json!({
            "policy": self.values["global"]["proxy"]["autoInject"],
            "defaultTemplates": webhook["defaultTemplates"],
            "templates": templates,
            "alwaysInjectSelector": webhook["alwaysInjectSelector"],
            "neverInjectSelector": webhook["neverInjectSelector"],
            "injectedAnnotations": webhook["injectedAnnotations"],
        })
    }
}

/// The part of the charts' values that is the injector's.
fn scoped(charts: &Value) -> Value {
    let part = |of: &Value, keys: &[&str]| -> Map<String, Value> {
        keys.iter().filter_map(|key| Some(((*key).to_owned(), of.get(*key)?.clone()))).collect()
    };
    let mut values = part(charts, &SCOPE);
    values.insert("pilot".to_owned(), Value::Object(part(&charts["pilot"], &["cni", "env", "crlConfigMapName"])));
    values.insert(
        "gateways".to_owned(),
        Value::Object(part(&charts["gateways"], &["securityContext", "seccompProfile"])),
    );
    Value::Object(values)
}

/// The mesh configuration that the charts make of values.
fn mesh_of(charts: &Value) -> Value {
    let global = &charts["global"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&global["istioNamespace"]);
    let revision = match text(&charts["revision"]) {
        revision if revision.is_empty() => revision,
        revision => format!("-{revision}"),
    };
    let mut proxy = json!({ "discoveryAddress": format!("istiod{revision}.{namespace}.svc:15012") });
    let mesh_id = text(&global["meshID"]);
    if !mesh_id.is_empty() {
        proxy["meshId"] = json!(mesh_id);
    }
    let variant = [&global["proxy"]["variant"], &global["variant"]].map(text).into_iter().find(|text| !text.is_empty());
    if let Some(variant) = variant {
        proxy["image"] = json!({ "imageType": variant });
    }
    if let Some(tracing) = tracing(global, &namespace) {
        proxy["tracing"] = tracing;
    }
    json!({
        "trustDomain": "cluster.local",
        "rootNamespace": namespace,
        "enablePrometheusMerge": true,
        "defaultConfig": proxy,
    })
}

/// `global.proxy.tracer` and what `global.tracer` says of it.
fn tracing(global: &Value, namespace: &str) -> Option<Value> {
    let tracer = global["proxy"]["tracer"].as_str()?;
    let of = &global["tracer"][tracer];
    let says = |value: &&Value| !value.is_null() && **value != json!("");
    let or = |key: &str, default: Value| of.get(key).filter(says).cloned().unwrap_or(default);
    let settings = match tracer {
        "lightstep" => json!({ "address": or("address", json!("")), "accessToken": or("accessToken", json!("")) }),
        "zipkin" => json!({ "address": or("address", json!(format!("zipkin.{namespace}:9411"))) }),
        "datadog" => json!({ "address": or("address", json!("$(HOST_IP):8126")) }),
        "stackdriver" => json!({
            "debug": or("debug", json!(false)),
            "maxNumberOfAttributes": or("maxNumberOfAttributes", json!(200)),
            "maxNumberOfAnnotations": or("maxNumberOfAnnotations", json!(200)),
            "maxNumberOfMessageEvents": or("maxNumberOfMessageEvents", json!(200)),
        }),
        _ => return None,
    };
    Some(json!({ tracer: settings }))
}

/// `values` over `base`, map by map. A null is kept: templates take it for "not even the default".
pub fn lay_over(base: &mut Value, values: &Value) {
    let Value::Object(values) = values else { return };
    if !base.is_object() {
        *base = json!({});
    }
    let Value::Object(base) = base else { return };
    for (key, value) in values {
        match (base.get_mut(key), value) {
            (Some(present @ Value::Object(_)), Value::Object(_)) => lay_over(present, value),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// A JSON merge patch (RFC 7386).
pub(super) fn merge_patch(base: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    let Value::Object(base) = base else { return };
    for (key, value) in patch {
        if value.is_null() {
            base.shift_remove(key);
        } else {
            merge_patch(base.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The value at a path, made where there is none.
fn at_path<'a>(root: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(root, |value, key| {
        if !value.is_object() {
            *value = json!({});
        }
        &mut value[*key]
    })
}

/// `--set a.b.c=value`; a dot in a name is written `\.`.
fn set(spec: &mut Value, flag: &str) -> Result<(), ValuesError> {
    let (path, value) = flag.split_once('=').ok_or_else(|| ValuesError::Flag(flag.to_owned()))?;
    let keys = path_of(path);
    if keys.iter().any(String::is_empty) {
        return Err(ValuesError::Flag(flag.to_owned()));
    }
    let mut target = spec;
    for (depth, key) in keys.iter().enumerate() {
        if target.is_null() {
            *target = json!({});
        }
        if !target.is_object() {
            return Err(ValuesError::NotAMap { flag: flag.to_owned(), at: keys[..depth].join(".") });
        }
        target = &mut target[key];
    }
    *target = scalar(value);
    Ok(())
}

fn path_of(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match (letter, keys.last_mut()) {
            ('.', _) => keys.push(String::new()),
            ('\\', Some(key)) => key.extend(letters.next()),
            (letter, Some(key)) => key.push(letter),
            (_, None) => {}
        }
    }
    keys
}

/// Booleans, whole numbers and null by their look; everything else is text, lists of ports too.
fn scalar(text: &str) -> Value {
    match text {
        "true" => json!(true),
        "false" => json!(false),
        "null" => Value::Null,
        _ => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
    }
}

/// The values of a ConfigMap or a file, in YAML or JSON.
///
/// # Errors
/// When the text is no map.
pub fn parse(text: &str) -> Result<Value, ValuesError> {
    let values: Option<Map<String, Value>> =
        super::document::read(text).map_err(|error| ValuesError::Syntax(error.to_string()))?;
    Ok(Value::Object(values.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
