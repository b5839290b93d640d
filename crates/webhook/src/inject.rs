//! Injection: a pod in, the pod with its proxy out.
//!
//! Owns the whole of Istio's contract for it: templates and what is merged how, overrides, probes, metrics, order, status.
//! Pure: what the cluster says (nodes, namespaces, ProxyConfigs) is given. Costs one rendering and a few merges a pod.

mod annotations;
pub mod case;
pub mod config;
mod deployment;
mod document;
pub mod manifest;
mod merge;
mod mesh;
mod names;
mod native;
mod openshift;
mod order;
mod overrides;
mod owner;
mod pod;
mod policy;
mod probes;
mod prometheus;
mod review;
mod shape;
mod status;
mod template;
mod templates;
#[cfg(test)]
mod testing;
pub mod values;

use std::collections::BTreeMap;

use meltemi_config::mesh::{InboundTrafficPolicyMode, MeshConfig, ProxyConfig};
use serde_json::{Value, json};

pub use config::InjectorConfig;
pub use deployment::GatewayTemplate;
pub use mesh::{
    MeshError, mesh_config, overlaid as overlaid_proxy_config, patched as patched_mesh, told as told_proxy_config,
};
pub use native::{NativeSidecars, Node};
pub use openshift::ProxyIds;
pub use owner::Workload;
pub use review::{Cluster, Outcome, Platform};
pub use template::{Environment, sprig_functions};

pub use templates::built_in as built_in_templates;

use merge::{MergeError, strategic_merge};
use shape::{Shape, canonical};
use template::Template;

/// Maps among the fields of ProxyConfig.
const PROXY_CONFIG_MAPS: [&str; 2] = ["proxyMetadata", "runtimeValues"];

#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    #[error("failed to run injection template: {}", .0.join("; "))]
    Annotations(Vec<String>),
    #[error("requested template {name:?} not found; have {have}")]
    UnknownTemplate { name: String, have: String },
    #[error("template {name:?}: {reason}")]
    Template { name: String, reason: String },
    #[error("template {name:?}: what it makes is no pod: {error}")]
    Overlay { name: String, error: MergeError },
    #[error("annotation {name}: {reason}")]
    Annotation { name: &'static str, reason: String },
    #[error("container {name:?} of the pod: {error}")]
    Container { name: String, error: MergeError },
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error("invalid prometheus scrape {0}")]
    Prometheus(String),
    #[error("{0}: not a map")]
    NotAPod(&'static str),
    #[error("there is no injector: {0}")]
    NoInjector(String),
}

/// What an injector is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    pub config: InjectorConfig,
    /// In the shape of [`values::defaults`].
    pub values: Value,
    pub mesh: MeshConfig,
    /// Of this control plane (`istio.io/rev`); empty for the default one.
    pub revision: String,
    /// What templates may read with `env`.
    pub environment: Environment,
    /// `COMPLIANCE_POLICY`; empty for none.
    pub compliance_policy: String,
}

/// An injector: settings whose templates have been parsed.
#[derive(Debug)]
pub struct Injector {
    settings: Settings,
    templates: BTreeMap<String, Template>,
}

/// What is known of one pod beside itself.
#[derive(Debug, Clone)]
struct Context {
    workload: Workload,
    /// What the status port and the order of containers are taken from.
    mesh: MeshConfig,
    proxy_config: ProxyConfig,
    native_sidecar: bool,
    ids: ProxyIds,
    /// From the webhook's path; over those of the template.
    variables: BTreeMap<String, String>,
    default_templates: Vec<String>,
    aliases: BTreeMap<String, Vec<String>>,
    injected_annotations: BTreeMap<String, String>,
}

impl Injector {
    /// # Errors
    /// When a template cannot be parsed.
    pub fn new(settings: Settings) -> Result<Self, InjectError> {
        let parse = |(name, text): (&String, &String)| match Template::parse(name, text, &settings.environment) {
            Ok(template) => Ok((name.clone(), template)),
            Err(reason) => Err(InjectError::Template { name: name.clone(), reason }),
        };
        let templates = settings.config.templates.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { settings, templates })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pod with what its templates put into it.
    fn inject(&self, pod: &Value, mut context: Context) -> Result<Value, InjectError> {
        let problems = annotations::problems(&pod::annotations(pod));
        if !problems.is_empty() {
            return Err(InjectError::Annotations(problems));
        }
        let original = canonical(pod, Shape::pod());
        self.place(&original, &mut context);
        let (mut merged, template) = self.render(&original, &context)?;
        overrides::reapply(&mut merged, &original, &template)?;
        overrides::align_users(&mut merged, &original, &context.proxy_config)?;
        self.finish(&mut merged, &original, &template, &context)?;
        Ok(canonical(&merged, Shape::pod()))
    }

    /// Cluster and network: by the values, the webhook's path, and for the network the pod's label, the last one winning.
    fn place(&self, pod: &Value, context: &mut Context) {
        let global = &self.settings.values["global"];
        let places = [
            (names::CLUSTER_VARIABLE, &global["multiCluster"]["clusterName"], None),
            (names::NETWORK_VARIABLE, &global["network"], pod::label(pod, names::NETWORK)),
        ];
        for (name, value, label) in places {
            let of_path = context.variables.get(name).filter(|value| !value.is_empty()).cloned();
            let place = label.map(str::to_owned).or(of_path).or_else(|| value.as_str().map(str::to_owned));
            if let Some(place) = place.filter(|place| !place.is_empty()) {
                context.variables.insert(name.to_owned(), place);
            }
        }
    }

    /// The pod with all its templates merged over it, and what they made alone.
    fn render(&self, original: &Value, context: &Context) -> Result<(Value, Value), InjectError> {
        let stripped = overrides::stripped(original, context.mesh.default_config.status_port)?;
        let data = self.data(&stripped, context);
        let (mut merged, mut alone) = (original.clone(), json!({}));
        let native = match pod::annotation(original, names::NATIVE_SIDECAR) {
            Some("true") => true,
            Some("false") => false,
            _ => context.native_sidecar,
        };
        for name in selected(original, context) {
            let template = self.templates.get(&name).ok_or_else(|| self.unknown(&name))?;
            let wrong = |reason: String| InjectError::Template { name: name.clone(), reason };
            let text = template.render(&data).map_err(wrong)?;
            let overlay =
                document::value(&text).map_err(|error| wrong(format!("what it makes is no YAML: {error}")))?;
            let lay = |base: &Value| match strategic_merge(base, &overlay, Shape::pod()) {
                Ok(merged) => Ok(canonical(&merged, Shape::pod())),
                Err(error) => Err(InjectError::Overlay { name: name.clone(), error }),
            };
            alone = lay(&alone)?;
            if native && pod::find(pod::list(&alone, "initContainers"), names::PROXY_CONTAINER).is_some() {
                order::make_native(&mut merged);
            }
            merged = lay(&merged)?;
        }
        Ok((merged, alone))
    }

    fn unknown(&self, name: &str) -> InjectError {
        let have: Vec<&str> = self.templates.keys().map(String::as_str).collect();
        InjectError::UnknownTemplate { name: name.to_owned(), have: have.join(", ") }
    }

    /// What templates see (Istio's `SidecarTemplateData`).
    fn data(&self, pod: &Value, context: &Context) -> gotmpl::Value {
        let settings = &self.settings;
        let image_type = context.proxy_config.image.as_ref().map(|image| &*image.image_type).unwrap_or_default();
        let annotation = pod::annotation(pod, names::PROXY_IMAGE_TYPE);
        let global = &settings.values["global"];
        let image = |key: &str, kind: &str| image(global, key, annotation.unwrap_or(or_variant(global, kind)));
        let workload = &context.workload;
        let proxy_config = json!(context.proxy_config);
        let told = shape::go_text(&mesh::told(&context.proxy_config));
        let mesh = json!(context.mesh);
        let mode = match context.mesh.inbound_traffic_policy.mode {
            InboundTrafficPolicyMode::Localhost => "localhost",
            _ => "passthrough",
        };
        let fields: BTreeMap<String, gotmpl::Value> = [
            ("TypeMeta", template::plain(&json!({ "APIVersion": workload.api_version, "Kind": workload.kind }))),
            ("DeploymentMeta", template::plain(&json!({ "Name": workload.name, "Namespace": workload.namespace }))),
            ("ObjectMeta", template::of_shape(&pod["metadata"], Shape::named("ObjectMeta"))),
            ("Spec", template::of_shape(&pod["spec"], Shape::named("PodSpec"))),
            ("ProxyConfig", template::structure(&proxy_config, &PROXY_CONFIG_MAPS, told)),
            ("MeshConfig", template::structure(&mesh, &[], mesh.to_string())),
            ("Values", template::plain(&settings.values)),
            ("Revision", settings.revision.as_str().into()),
            ("NativeSidecars", gotmpl::Value::Bool(context.native_sidecar)),
            ("ProxyImage", image("proxy", image_type).into()),
            ("ProxyInitImage", image("proxy_init", "").into()),
            ("ProxyUID", gotmpl::Value::Int(context.ids.user)),
            ("ProxyGID", gotmpl::Value::Int(context.ids.group)),
            ("InboundTrafficPolicyMode", mode.into()),
            ("CompliancePolicy", settings.compliance_policy.as_str().into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        fields.into()
    }

    /// What no template can say: it depends on what has come of all of them.
    fn finish(
        &self,
        pod: &mut Value,
        original: &Value,
        template: &Value,
        context: &Context,
    ) -> Result<(), InjectError> {
        set_variables(pod, &context.variables);
        prometheus::merge(pod, &context.mesh)?;
        prometheus::announce_secure_port(pod);
        let rewrites = self.settings.values["sidecarInjectorWebhook"]["rewriteAppHTTPProbe"] == true;
        probes::rewrite(pod, rewrites, context.mesh.default_config.status_port);
        if let Some(network) = context.variables.get(names::NETWORK_VARIABLE) {
            pod::metadata_map(pod, "labels").insert(names::NETWORK.to_owned(), json!(network));
        }
        let annotations = pod::metadata_map(pod, "annotations");
        annotations.insert(names::STATUS.to_owned(), json!(status::of(template, &self.settings.revision)));
        annotations.extend(context.injected_annotations.iter().map(|(name, value)| (name.clone(), json!(value))));
        let holds = self.holds(original, context)?;
        order::containers(pod, holds);
        Ok(())
    }

    fn holds(&self, pod: &Value, context: &Context) -> Result<bool, InjectError> {
        let of_values = self.settings.values["global"]["proxy"]["holdApplicationUntilProxyStarts"] == true;
        let of_mesh = &context.mesh.default_config;
        let of_proxy = match pod::annotation(pod, names::PROXY_CONFIG) {
            Some(text) => mesh::overlaid(of_mesh, text)?.hold_application_until_proxy_starts,
            None => of_mesh.hold_application_until_proxy_starts,
        };
        Ok(of_values || of_proxy == Some(true))
    }
}

/// The templates that a pod asks for, or the default ones, aliases resolved.
fn selected(pod: &Value, context: &Context) -> Vec<String> {
    let asked = pod::annotation(pod, names::TEMPLATES);
    let names = asked.map_or_else(
        || context.default_templates.clone(),
        |asked| asked.split(',').map(|name| name.trim().to_owned()).collect(),
    );
    names.into_iter().flat_map(|name| context.aliases.get(&name).cloned().unwrap_or_else(|| vec![name])).collect()
}

/// What the webhook's path says, over the proxy's environment.
fn set_variables(pod: &mut Value, variables: &BTreeMap<String, String>) {
    let Some(proxy) = pod::container_mut(pod, names::PROXY_CONTAINER).filter(|_| !variables.is_empty()) else { return };
    if let Some(Value::Array(present)) = proxy.get_mut("env") {
        present.retain(|variable| !variables.contains_key(variable["name"].as_str().unwrap_or_default()));
    }
    for (name, value) in variables {
        pod::append_variable(proxy, name, value.clone());
    }
}

/// The kind of image that ProxyConfig names, or that of all images. An annotation that is empty is neither.
fn or_variant<'a>(global: &'a Value, kind: &'a str) -> &'a str {
    if kind.is_empty() { global["variant"].as_str().unwrap_or_default() } else { kind }
}

/// Kinds of images, which may be part of the tag.
const IMAGE_TYPES: [&str; 2] = ["distroless", "debug"];

/// `hub/image:tag[-type]`.
fn image(global: &Value, key: &str, kind: &str) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let given = |value: &Value| Some(value).filter(|value| !value.is_null()).map(text).filter(|text| !text.is_empty());
    let name = given(&global[key]["image"]).unwrap_or_else(|| values::IMAGE.to_owned());
    let hub = given(&global["hub"]).unwrap_or_default();
    let tag = given(&global["tag"]).unwrap_or_default();
    let known =
        |tag: &str| IMAGE_TYPES.iter().find_map(|known| tag.strip_suffix(known)?.strip_suffix('-').map(str::to_owned));
    let tag = match kind {
        "" => tag,
        "default" => known(&tag).unwrap_or(tag),
        kind => format!("{}-{kind}", known(&tag).unwrap_or(tag)),
    };
    format!("{hub}/{name}:{tag}")
}

#[cfg(test)]
mod tests;
