//! Containers of the user's that a template has, too: what the user says of them wins, now and when the pod is injected
//! again, for which it is kept in the annotation `proxy.istio.io/overrides`.

use meltemi_config::mesh::{InboundInterceptionMode, ProxyConfig};
use serde_json::{Map, Value, json};

use super::shape::{Shape, canonical, go_json};
use super::status::Status;
use super::{InjectError, merge, names, pod, prometheus};

/// An image that stands for ours: a container has to have one.
const AUTO_IMAGE: &str = "auto";

/// The overrides that an earlier injection found.
fn kept(pod: &Value) -> Result<Value, InjectError> {
    let Some(text) = pod::annotation(pod, names::OVERRIDES) else { return Ok(Value::Null) };
    serde_json::from_str(text)
        .map_err(|error| InjectError::Annotation { name: names::OVERRIDES, reason: error.to_string() })
}

fn list<'a>(overrides: &'a Value, list: &str) -> &'a [Value] {
    overrides[list].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The pod as it was before an earlier injection, for templates to look at.
pub fn stripped(original: &Value, status_port: i32) -> Result<Value, InjectError> {
    let mut pod = original.clone();
    if let Some(status) = Status::of_pod(original) {
        for list in pod::LISTS {
            let injected = status.list(list);
            pod::list_mut(&mut pod, list)
                .retain(|container| !injected.iter().any(|name| name == pod::name_of(container)));
        }
        prometheus::strip(&mut pod, status_port);
        pod::metadata_map(&mut pod, "annotations").shift_remove(names::STATUS);
    }
    let kept = kept(original)?;
    for kind in pod::LISTS {
        let missing = list(&kept, kind)
            .iter()
            .filter(|container| pod::find(pod::list(&pod, kind), pod::name_of(container)).is_none());
        let missing: Vec<Value> = missing.cloned().collect();
        if !missing.is_empty() {
            pod::list_mut(&mut pod, kind).extend(missing);
        }
    }
    Ok(canonical(&pod, Shape::pod()))
}

/// Lays the user's containers over the merged ones once more: the template was merged over them.
pub fn reapply(merged: &mut Value, original: &Value, template: &Value) -> Result<(), InjectError> {
    let kept = kept(original)?;
    let is_again = pod::annotation(original, names::STATUS).is_some();
    let status = Status::of_pod(original).unwrap_or_default();
    let mut found = Vec::new();
    for kind in pod::LISTS {
        let mut own_containers = Vec::new();
        for container in pod::list(template, kind) {
            let name = pod::name_of(container);
            // What is there may be what an earlier injection has made of it.
            let is_ours = status.list(kind).iter().any(|injected| injected == name);
            let own = || match kind {
                _ if is_ours => None,
                "containers" => pod::find(pod::list(original, kind), name),
                // The proxy of users is an ordinary container even where ours is not.
                _ => pod::container(original, name),
            };
            let Some(own) = pod::find(list(&kept, kind), name).or_else(own) else { continue };
            let overlay = without_auto_image(own);
            lay(merged, kind, &overlay)?;
            own_containers.push(go_json(&overlay, Shape::container()));
        }
        if !own_containers.is_empty() {
            found.push(format!("\"{kind}\":[{}]", own_containers.join(",")));
        }
    }
    if !is_again && !found.is_empty() {
        let text = format!("{{{}}}", found.join(","));
        pod::metadata_map(merged, "annotations").insert(names::OVERRIDES.to_owned(), json!(text));
    }
    Ok(())
}

fn without_auto_image(container: &Value) -> Value {
    let mut container = container.clone();
    if container["image"] == AUTO_IMAGE
        && let Some(container) = container.as_object_mut()
    {
        container.shift_remove("image");
    }
    container
}

fn lay(merged: &mut Value, list: &str, container: &Value) -> Result<(), InjectError> {
    let overlay = json!({ "spec": { list: [canonical(container, Shape::container())] } });
    let laid = merge::strategic_merge(merged, &overlay, Shape::pod())
        .map_err(|error| InjectError::Container { name: pod::name_of(container).to_owned(), error })?;
    *merged = canonical(&laid, Shape::pod());
    Ok(())
}

/// Where the user says whom the proxy runs as, capture has to know.
pub fn align_users(merged: &mut Value, original: &Value, proxy_config: &ProxyConfig) -> Result<(), InjectError> {
    // Of a pod that was injected before, what is there is not the user's word.
    let kept = kept(original)?;
    let said = pod::LISTS.iter().find_map(|kind| pod::find(list(&kept, kind), names::PROXY_CONTAINER));
    let Some(own) = said.or_else(|| pod::container(original, names::PROXY_CONTAINER)) else { return Ok(()) };
    let (user, group) = (own["securityContext"].get("runAsUser"), own["securityContext"].get("runAsGroup"));
    if user.is_none() && group.is_none() {
        return Ok(());
    }
    let ours = [names::INIT_CONTAINER, names::VALIDATION_CONTAINER];
    let found = ours.into_iter().find(|name| pod::find(pod::list(merged, "initContainers"), name).is_some());
    let Some(init) = found else {
        tracing::warn!("neither {} nor {} is there to be told the proxy's user", ours[0], ours[1]);
        return Ok(());
    };
    let is_tproxy = proxy_config.interception_mode == InboundInterceptionMode::Tproxy
        || pod::annotation(merged, names::INTERCEPTION_MODE) == Some("TPROXY");
    if is_tproxy && user.is_some() {
        // TPROXY needs root.
        if let Some(proxy) = pod::container_mut(merged, names::PROXY_CONTAINER) {
            pod::object(proxy, "securityContext").insert("runAsUser".to_owned(), json!(0));
        }
    }
    let Some(container) = pod::container_mut(merged, init) else { return Ok(()) };
    if !is_tproxy && init == names::VALIDATION_CONTAINER {
        let context = pod::object(container, "securityContext");
        for (name, value) in [("runAsUser", user), ("runAsGroup", group)] {
            context.extend(value.map(|value| (name.to_owned(), value.clone())));
        }
    }
    // The kernel takes no rule for traffic of root.
    if let Some(user) = user.and_then(Value::as_i64).filter(|user| *user != 0) {
        set_captured_user(container, user);
    }
    Ok(())
}

/// The argument after `-u`.
fn set_captured_user(container: &mut Map<String, Value>, user: i64) {
    let Some(Value::Array(arguments)) = container.get_mut("args") else { return };
    let Some(position) = arguments.iter().position(|argument| argument == "-u") else { return };
    if let Some(argument) = arguments.get_mut(position + 1) {
        *argument = json!(user.to_string());
    }
}
