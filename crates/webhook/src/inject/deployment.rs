//! What is deployed for a Gateway by a template of the installation's, which has the name and the data that Istio's has.
//!
//! Owns the data; which objects are applied, and what is laid over them, is the caller's.

use std::collections::BTreeMap;
use std::fmt;

use meltemi_config::split_documents;
use serde_json::{Value, json};

use super::shape::Shape;
use super::template::{self, Template};
use super::{InjectError, PROXY_CONFIG_MAPS, Settings, document, mesh, names, shape};

const NAME: &str = "kube-gateway";
/// The API server is not asked: whichever serves what is deployed is no older (1.28).
const KUBE_VERSION: i64 = 128;

/// A template for what is deployed.
pub struct GatewayTemplate {
    template: Template,
    settings: Settings,
}

impl fmt::Debug for GatewayTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GatewayTemplate").field(&self.template).finish()
    }
}

impl GatewayTemplate {
    /// None where the installation has no such template.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn of(settings: Settings) -> Result<Option<Self>, InjectError> {
        let Some(text) = settings.config.templates.get(NAME) else { return Ok(None) };
        let template = Template::parse(NAME, text, &settings.environment)
            .map_err(|reason| InjectError::Template { name: NAME.to_owned(), reason })?;
        Ok(Some(Self { template, settings }))
    }

    /// The objects for a Gateway, which is told as `metadata`, `spec` and what the caller made of them: `names` of the Deployment and
    /// the ServiceAccount, `ports` and `type` of the Service, `labels` and `annotations` of all objects, `user` and `group`.
    ///
    /// # Errors
    /// When the template refuses, or what it makes are no objects.
    pub fn objects(&self, gateway: &Value) -> Result<Vec<Value>, String> {
        let text = self.template.render(&self.data(gateway))?;
        let documents = split_documents(&text).into_iter().map(|(line, part)| {
            document::value(part)
                .map_err(|error| format!("what it makes is no YAML: line {}: {}", line + 1, error.message))
        });
        let objects = documents.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|object| *object != json!({}));
        let objects: Vec<Value> = objects.collect();
        match objects.iter().find(|object| !object["kind"].is_string() || !object["metadata"]["name"].is_string()) {
            Some(_) => Err("what it makes has no kind or no name".to_owned()),
            None => Ok(objects),
        }
    }

    /// Istio's `TemplateInput`.
    fn data(&self, gateway: &Value) -> gotmpl::Value {
        let settings = &self.settings;
        let (metadata, spec) = (&gateway["metadata"], &gateway["spec"]);
        let proxy_config = &settings.mesh.default_config;
        let annotation = metadata["annotations"][names::PROXY_IMAGE_TYPE].as_str();
        let image_type = proxy_config.image.as_ref().map(|image| &*image.image_type).unwrap_or_default();
        let global = &settings.values["global"];
        let image = super::image(global, "proxy", annotation.unwrap_or(super::or_variant(global, image_type)));
        let told = shape::go_text(&mesh::told(proxy_config));
        let mesh = json!(settings.mesh);
        let fields: BTreeMap<String, gotmpl::Value> = [
            ("ObjectMeta", template::of_shape(metadata, Shape::named("ObjectMeta"))),
            ("Name", template::plain(&metadata["name"])),
            ("Namespace", template::plain(&metadata["namespace"])),
            ("UID", template::plain(&metadata["uid"])),
            ("Labels", template::plain(&metadata["labels"])),
            ("Annotations", template::plain(&metadata["annotations"])),
            ("Spec", template::structure(spec, &[], spec.to_string())),
            ("GatewayClass", template::plain(&spec["gatewayClassName"])),
            ("DeploymentName", template::plain(&gateway["names"]["deployment"])),
            ("ServiceAccount", template::plain(&gateway["names"]["account"])),
            ("Ports", ports(&gateway["ports"])),
            ("ServiceType", template::plain(&gateway["type"])),
            ("InfrastructureLabels", template::plain(&gateway["labels"])),
            ("InfrastructureAnnotations", template::plain(&gateway["annotations"])),
            ("GatewayNameLabel", "gateway.networking.k8s.io/gateway-name".into()),
            ("ControllerLabel", "istio.io-gateway-controller".into()),
            ("ClusterID", template::plain(&gateway["cluster"])),
            ("KubeVersion", gotmpl::Value::Int(KUBE_VERSION)),
            ("Revision", settings.revision.as_str().into()),
            ("ProxyUID", template::plain(&gateway["user"])),
            ("ProxyGID", template::plain(&gateway["group"])),
            ("ProxyImage", image.into()),
            ("ProxyConfig", template::structure(&json!(proxy_config), &PROXY_CONFIG_MAPS, told)),
            ("MeshConfig", template::structure(&mesh, &[], mesh.to_string())),
            ("Values", template::plain(&settings.values)),
            ("CompliancePolicy", settings.compliance_policy.as_str().into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        fields.into()
    }
}

/// Each a struct.
fn ports(ports: &Value) -> gotmpl::Value {
    let all = ports.as_array().into_iter().flatten();
    all.map(|port| template::structure(port, &[], port.to_string())).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests;
