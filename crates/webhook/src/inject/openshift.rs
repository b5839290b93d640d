//! OpenShift gives every namespace a range of users, and takes no other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::names;
use super::pod;

const USERS: &str = "openshift.io/sa.scc.uid-range";
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";
const DEFAULT: i64 = 1337;

/// Whom the proxy runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyIds {
    pub user: i64,
    pub group: i64,
}

impl Default for ProxyIds {
    fn default() -> Self {
        Self { user: DEFAULT, group: DEFAULT }
    }
}

impl ProxyIds {
    /// The last user and group of the ranges in a namespace's annotations.
    pub fn of_namespace(annotations: &BTreeMap<String, String>) -> Self {
        let last = |text: &String| last_of_range(text.split(',').next().unwrap_or_default());
        let user = annotations.get(USERS).and_then(|text| last_of_range(text));
        let group = annotations.get(GROUPS).or_else(|| annotations.get(USERS)).and_then(last);
        Self { user: user.unwrap_or(DEFAULT), group: group.unwrap_or(DEFAULT) }
    }
}

/// The end of `start/size` or `start-end`.
fn last_of_range(text: &str) -> Option<i64> {
    let numbers = |(start, other): (&str, &str)| Some((start.parse::<u32>().ok()?, other.parse::<u32>().ok()?));
    let last = match text.split_once('/') {
        Some(parts) => numbers(parts).and_then(|(start, size)| start.checked_add(size)?.checked_sub(1)),
        None => text.split_once('-').and_then(numbers).map(|(_, end)| end),
    };
    last.map(i64::from)
}

/// OpenShift gives every container of a pod the same user. The proxy must not have that: its own traffic would be captured.
pub fn forget_assigned_user(pod: &mut Value) {
    let user_of = |container: &Value| container["securityContext"]["runAsUser"].as_i64();
    let containers = || pod::LISTS.iter().flat_map(|list| pod::list(pod, list));
    let of_proxy = containers().filter(|container| pod::name_of(container) == names::PROXY_CONTAINER);
    let is_ours =
        |name: &str| [names::PROXY_CONTAINER, names::VALIDATION_CONTAINER, names::INIT_CONTAINER].contains(&name);
    let of_application = containers().filter(|container| !is_ours(pod::name_of(container)));
    let (proxy, application) =
        (of_proxy.filter_map(user_of).next_back(), of_application.filter_map(user_of).next_back());
    if proxy.unwrap_or_default() != application.unwrap_or_default() {
        return;
    }
    let proxy = pod::container_mut(pod, names::PROXY_CONTAINER);
    if let Some(Value::Object(context)) = proxy.and_then(|proxy| proxy.get_mut("securityContext")) {
        context.shift_remove("runAsUser");
        context.shift_remove("runAsGroup");
    }
}

#[cfg(test)]
mod tests;
