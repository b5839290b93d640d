//! Route configurations: which virtual hosts and routes come, go, and change.

use meltemi_translate::names::Cluster;
use serde_json::{Value, json};

use super::fields::differing;
use super::{Change, What};

/// What differs, told by virtual host and route; nothing where the difference is elsewhere.
pub(super) fn words(name: &str, old: &Value, new: &Value) -> Vec<Change> {
    let (before, after) = (list(&old["virtual_hosts"]), list(&new["virtual_hosts"]));
    let mut changes = Vec::new();
    let of_name = |hosts: &'_ [Value], name: &Value| hosts.iter().find(|host| host["name"] == *name).cloned();
    for host in after {
        let title = format!("{name}/{}", text(&host["name"]));
        match of_name(before, &host["name"]) {
            None => changes.push(Change { kind: "route", name: title, what: What::Added }),
            Some(was) if was != *host => changes.extend(of_host(&title, &was, host)),
            Some(_) => {}
        }
    }
    for host in before.iter().filter(|host| of_name(after, &host["name"]).is_none()) {
        let title = format!("{name}/{}", text(&host["name"]));
        changes.push(Change { kind: "route", name: title, what: What::Removed });
    }
    changes.extend(rest(name, old, new, "virtual_hosts"));
    changes
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What differs besides one field.
fn rest(name: &str, old: &Value, new: &Value, but: &str) -> Option<Change> {
    let without = |value: &Value| {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove(but);
        }
        value
    };
    let fields = differing(&without(old), &without(new));
    (!fields.is_empty()).then(|| Change { kind: "route", name: name.to_owned(), what: What::Fields(fields) })
}

fn of_host(title: &str, old: &Value, new: &Value) -> Vec<Change> {
    let (before, after) = (list(&old["routes"]), list(&new["routes"]));
    let mut changes = Vec::new();
    let pairs = pair(before, after);
    for (index, route) in after.iter().enumerate() {
        match pairs.iter().find(|(_, is)| *is == index) {
            None => {
                let text = format!("new route{}: {}, {}", named(route), condition(route), action(route));
                changes.push(Change::told("route", title, text));
            }
            Some((was, _)) if before[*was] != *route => {
                changes.extend(of_route(title, &before[*was], route, after.len() > 1));
            }
            Some(_) => {}
        }
    }
    for (_, route) in before.iter().enumerate().filter(|(index, _)| !pairs.iter().any(|(was, _)| was == index)) {
        let text = format!("route{} is gone: {}, {}", named(route), condition(route), action(route));
        changes.push(Change::told("route", title, text));
    }
    if !pairs.is_sorted_by_key(|(_, is)| *is) {
        changes.push(Change::told("route", title, "its routes are looked at in another order"));
    }
    changes.extend(rest(title, old, new, "routes"));
    changes
}

/// Routes that are the same one on both sides: by name and condition, else by condition, else by name.
fn pair(before: &[Value], after: &[Value]) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let same: [fn(&Value, &Value) -> bool; 3] = [
        |old, new| old["name"] == new["name"] && old["match"] == new["match"],
        |old, new| old["match"] == new["match"],
        |old, new| old["name"] == new["name"] && !text(&old["name"]).is_empty(),
    ];
    for same in same {
        for (was, old) in before.iter().enumerate() {
            if pairs.iter().any(|(own, _)| *own == was) {
                continue;
            }
            let free = |is: &usize| !pairs.iter().any(|(_, own)| own == is);
            let found = after.iter().enumerate().find(|(is, new)| free(is) && same(old, new)).map(|(is, _)| is);
            pairs.extend(found.map(|is| (was, is)));
        }
    }
    pairs.sort_unstable();
    pairs
}

fn of_route(title: &str, old: &Value, new: &Value, several: bool) -> Vec<Change> {
    let prefix = if several { format!("route{}: ", named(new)) } else { String::new() };
    let told = |text: String| Change::told("route", title, format!("{prefix}{text}"));
    let mut changes = Vec::new();
    let (mut old, mut new) = (old.clone(), new.clone());
    let (was, is) = (clusters(&old), clusters(&new));
    if was != is && !was.is_empty() && !is.is_empty() {
        changes.push(told(shares(&was, &is)));
        for route in [&mut old, &mut new] {
            if let Some(action) = route["route"].as_object_mut() {
                action.shift_remove("cluster");
                action.shift_remove("weighted_clusters");
            }
        }
    }
    if old["route"]["timeout"] != new["route"]["timeout"] {
        let shown = |value: &Value| value.as_str().filter(|text| *text != "0s").unwrap_or("none").to_owned();
        let (was, is) = (shown(&old["route"]["timeout"]), shown(&new["route"]["timeout"]));
        if was != is {
            changes.push(told(format!("timeout {was} → {is}")));
        }
        for route in [&mut old, &mut new] {
            if let Some(action) = route["route"].as_object_mut() {
                action.shift_remove("timeout");
                action.shift_remove("max_grpc_timeout");
                action.shift_remove("max_stream_duration");
            }
        }
    }
    let (was, is) = (origin(&old), origin(&new));
    if was != is {
        changes.push(told(format!("is from {is}, no longer from {was}")));
        for route in [&mut old, &mut new] {
            if let Some(fields) = route.as_object_mut() {
                fields.shift_remove("metadata");
                fields.shift_remove("name");
            }
        }
    }
    // Names of trace spans follow the destinations.
    let fields = differing(&old, &new).into_iter().filter(|field| !field.path.starts_with("decorator"));
    let fields: Vec<String> = fields.take(super::MAX_FIELDS).map(|field| field.to_string()).collect();
    if !fields.is_empty() {
        changes.push(told(fields.join("; ")));
    }
    changes
}

/// `virtual-service shop/catalog`; the service itself without one.
fn origin(route: &Value) -> String {
    let path = route["metadata"]["filter_metadata"]["istio"]["config"].as_str().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "namespaces", namespace, kind, name] => format!("{kind} {namespace}/{name}"),
        _ => "the service alone".to_owned(),
    }
}

/// Clusters with their weights; a single one has all.
fn clusters(route: &Value) -> Vec<(String, u64)> {
    let action = &route["route"];
    if let Some(name) = action["cluster"].as_str() {
        return vec![(name.to_owned(), 100)];
    }
    let weighted = list(&action["weighted_clusters"]["clusters"]).iter();
    weighted.map(|own| (text(&own["name"]).to_owned(), own["weight"].as_u64().unwrap_or_default())).collect()
}

/// `weight of v1 90 → 50, weight of v2 10 → 50`.
fn shares(was: &[(String, u64)], is: &[(String, u64)]) -> String {
    let weight =
        |list: &[(String, u64)], name: &str| list.iter().find(|(own, _)| own == name).map(|(_, weight)| *weight);
    if let ([(old, _)], [(new, _)]) = (was, is) {
        return format!("goes to {} in place of {}", short(new), short(old));
    }
    let mut parts = Vec::new();
    for (name, now) in is {
        match weight(was, name) {
            Some(before) if before != *now => parts.push(format!("weight of {} {before} → {now}", short(name))),
            Some(_) => {}
            None => parts.push(format!("{now} now go to {}", short(name))),
        }
    }
    let gone = was.iter().filter(|(name, _)| weight(is, name).is_none());
    parts.extend(gone.map(|(name, before)| format!("none to {} (weight was {before})", short(name))));
    parts.join(", ")
}

/// The subset where there is one, else the host and port.
fn short(cluster: &str) -> String {
    match Cluster::parse(cluster) {
        Cluster::Outbound { subset: "", port, host } => format!("{host}:{port}"),
        Cluster::Outbound { subset, .. } => subset.to_owned(),
        _ => cluster.to_owned(),
    }
}

fn named(route: &Value) -> String {
    match text(&route["name"]) {
        "" => String::new(),
        name => format!(" {name}"),
    }
}

/// `prefix /a, header end-user`.
fn condition(route: &Value) -> String {
    let wanted = &route["match"];
    let mut parts = Vec::new();
    for key in ["prefix", "path", "path_separated_prefix"] {
        if let Some(path) = wanted[key].as_str() {
            parts.push(format!("{} {path}", key.replace('_', " ")));
        }
    }
    if let Some(regex) = wanted["safe_regex"]["regex"].as_str() {
        parts.push(format!("regex {regex}"));
    }
    parts.extend(list(&wanted["headers"]).iter().map(|header| format!("header {}", text(&header["name"]))));
    parts.extend(
        list(&wanted["query_parameters"]).iter().map(|query| format!("query parameter {}", text(&query["name"]))),
    );
    parts.join(", ")
}

fn action(route: &Value) -> String {
    if route.get("redirect").is_some() {
        return "a redirect".to_owned();
    }
    if let Some(status) = route["direct_response"]["status"].as_u64() {
        return format!("answered with {status}");
    }
    let clusters = clusters(route);
    match clusters.as_slice() {
        [(one, _)] => format!("to {one}"),
        [] => json!(route["route"]).to_string(),
        several => {
            let parts: Vec<String> = several.iter().map(|(name, weight)| format!("{weight} to {name}")).collect();
            parts.join(", ")
        }
    }
}
