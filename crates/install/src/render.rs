//! From an installation to its objects.
//!
//! Owns: which components' objects there are, and in which order. Pure: the same installation is the same objects.

use serde_json::json;
use thiserror::Error;

use crate::chart::{ChartError, Contents, Release};
use crate::component::{Component, Instance, instances};
use crate::object::{COMPONENT_LABEL, OWNER_LABEL, Object, sort};
use crate::operator::{Notice, Operator};
use crate::translate::for_charts;
use crate::{overlay, path};

#[derive(Debug, Error)]
pub enum RenderError {
    #[error(transparent)]
    Chart(#[from] ChartError),
    #[error("{0}")]
    Overlay(Notice),
    #[error("{0} is made twice: two gateways have the same name and namespace")]
    Twice(String),
}

/// The objects of one component.
#[derive(Debug, Clone)]
pub struct Part {
    pub component: Component,
    /// In the order in which they are made.
    pub objects: Vec<Object>,
}

#[derive(Debug, Clone)]
pub struct Rendered {
    pub parts: Vec<Part>,
    /// Settings that reached nothing.
    pub notices: Vec<Notice>,
}

impl Rendered {
    /// All objects, in the order in which they are made.
    pub fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<_> = self.parts.iter().flat_map(|part| part.objects.iter().cloned()).collect();
        sort(&mut objects);
        objects
    }
}

/// Everything that an installation comes to.
pub fn render(operator: &Operator, contents: &Contents) -> Result<Rendered, RenderError> {
    let instances = instances(operator);
    let mut rendered = Rendered { parts: Vec::new(), notices: Vec::new() };
    for component in Component::ALL {
        let mut objects = Vec::new();
        for instance in instances.iter().filter(|instance| instance.component == component) {
            let (made, notices) = render_instance(instance, contents)?;
            objects.extend(made);
            rendered.notices.extend(notices);
        }
        if component == first(&instances) {
            objects.extend(namespaces(operator, &instances));
        }
        sort(&mut objects);
        if let Some(pair) = objects.windows(2).find(|pair| pair[0].key() == pair[1].key()) {
            return Err(RenderError::Twice(pair[0].key().to_string()));
        }
        if !objects.is_empty() {
            rendered.parts.push(Part { component, objects });
        }
    }
    Ok(rendered)
}

fn render_instance(instance: &Instance, contents: &Contents) -> Result<(Vec<Object>, Vec<Notice>), RenderError> {
    let release = Release { name: instance.release(), namespace: &instance.namespace };
    let mut objects = instance.component.chart().render(&release, &for_charts(&instance.values), contents)?;
    let notices = overlay::apply(instance, &mut objects).map_err(RenderError::Overlay)?;
    Ok((objects, notices))
}

/// The component that is made first.
fn first(instances: &[Instance]) -> Component {
    instances.first().map_or(Component::Base, |instance| instance.component)
}

/// The namespaces that components are in, but for those that every cluster has.
fn namespaces(operator: &Operator, instances: &[Instance]) -> Vec<Object> {
    let mut names: Vec<&str> = instances.iter().map(|instance| &*instance.namespace).collect();
    names.sort_unstable();
    names.dedup();
    let foreign = |name: &&str| *name != "default" && !name.starts_with("kube-");
    let owner = path::find(&operator.values, "ownerName").and_then(serde_json::Value::as_str).unwrap_or(&operator.name);
    let object = |name: &str| {
        let labels = json!({COMPONENT_LABEL: Component::Base.label(), OWNER_LABEL: owner});
        Object::new(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})).ok()
    };
    let scope = path::find(&operator.values, "global.resourceScope").and_then(serde_json::Value::as_str);
    if scope == Some("namespace") {
        return Vec::new();
    }
    names.into_iter().filter(foreign).filter_map(object).collect()
}

#[cfg(test)]
mod tests;
