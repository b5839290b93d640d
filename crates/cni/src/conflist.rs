//! The configuration of a node's container network, with the plugin in it. Pure.
//!
//! Owns: which file counts, what is to stand in it, and how the plugin comes out again. A runtime uses the first file by
//! name that it can read; all that others wrote stays as they wrote it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::network::VERSIONS;

#[cfg(test)]
mod tests;

/// The plugin's type, and the name of its program. Istio's, so that either takes the other's place.
pub const PLUGIN: &str = "istio-cni";

/// Of a list made from a single configuration that has no name.
const LIST_NAME: &str = "k8s-pod-network";
/// Of a configuration that names none.
const LIST_VERSION: &str = "0.3.1";
/// The file of a plugin that is not chained.
const ALONE: &str = "YYY-istio-cni.conf";

/// Files of a folder, name to text, in the order in which a runtime tries them.
pub type Files = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// At the end of the list that the runtime uses.
    Chained,
    /// In a file of our own of this name: a copy of the list that the runtime would use, with the plugin at its end.
    Owned(String),
    /// In a file of its own, without others: for a meta plugin that names it.
    Alone,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub mode: Mode,
    /// The file to chain into, where it is not to be the first; or, alone, to write.
    pub file: Option<String>,
    /// The plugin's own object, as [`plugin`] makes it.
    pub plugin: Map<String, Value>,
}

/// What to do about a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// All is as it should be, in this file.
    Keep(String),
    Write {
        name: String,
        text: String,
        /// A file that the written one replaces.
        replaces: Option<String>,
    },
    /// Nothing can be done yet; why.
    Wait(String),
}

/// A file without the plugin; without text, no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub name: String,
    pub text: Option<String>,
}

/// What the plugin is told.
#[derive(Debug, Clone, Default)]
pub struct PluginSettings {
    pub log_level: String,
    pub run_folder: String,
    pub exclude_namespaces: Vec<String>,
    pub pod_namespace: String,
    pub native_nftables: bool,
    /// Which `iptables` writes the rules, `legacy` or `nft`; empty for the node's default.
    pub force_iptables_binary: String,
}

/// The plugin's object in a list.
pub fn plugin(settings: &PluginSettings) -> Map<String, Value> {
    let mut value = json!({
        "name": PLUGIN,
        "type": PLUGIN,
        "plugin_log_level": settings.log_level,
        "cni_agent_run_dir": settings.run_folder,
        "ambient_enabled": false,
        "exclude_namespaces": settings.exclude_namespaces,
        "pod_namespace": settings.pod_namespace,
        "native_nftables": settings.native_nftables,
    });
    if !settings.force_iptables_binary.is_empty() {
        value["force_iptables_binary"] = json!(settings.force_iptables_binary);
    }
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A configuration that others wrote.
enum Existing {
    List(Map<String, Value>),
    One(Map<String, Value>),
}

fn text_of<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A configuration, or why a runtime would pass the file over.
fn existing(name: &str, text: &str) -> Result<Existing, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{name}: no JSON: {error}"))?;
    let Value::Object(map) = value else { return Err(format!("{name}: no JSON object")) };
    if !name.ends_with(".conflist") {
        if map.get("name").is_some_and(|name| !name.is_string()) {
            return Err(format!("{name}: name: a string is expected"));
        }
        return match text_of(&map, "type") {
            Some(_) => Ok(Existing::One(map)),
            None => Err(format!("{name}: type: a plugin's type is expected")),
        };
    }
    if text_of(&map, "name").is_none() {
        return Err(format!("{name}: name: a name is expected"));
    }
    let Some(plugins) = map.get("plugins").and_then(Value::as_array).filter(|plugins| !plugins.is_empty()) else {
        return Err(format!("{name}: plugins: a list of plugins is expected"));
    };
    let untyped = |plugin: &Value| plugin.as_object().and_then(|plugin| text_of(plugin, "type")).is_none();
    match plugins.iter().position(untyped) {
        Some(i) => Err(format!("{name}: plugins[{i}].type: a plugin's type is expected")),
        None => Ok(Existing::List(map)),
    }
}

fn is_configuration(name: &str) -> bool {
    [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending))
}

/// Whether the plugin speaks a version of the list's.
fn speaks(list: &Map<String, Value>) -> bool {
    let known = |version: &Value| version.as_str().is_some_and(|version| VERSIONS.contains(&version));
    list.get("cniVersion").is_some_and(known)
        || list.get("cniVersions").and_then(Value::as_array).is_some_and(|versions| versions.iter().any(known))
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

/// The list with the plugin at its end, once.
fn inserted(name: &str, existing: Existing, plugin: &Map<String, Value>) -> Result<Value, String> {
    let mut list = match existing {
        Existing::List(list) => list,
        Existing::One(mut one) => {
            // Plugins keep what they know under the list's name, so it must not change.
            let name = text_of(&one, "name").unwrap_or(LIST_NAME).to_owned();
            let version = one.remove("cniVersion").unwrap_or_else(|| LIST_VERSION.into());
            let mut list = Map::new();
            list.insert("name".to_owned(), name.into());
            list.insert("cniVersion".to_owned(), version);
            list.insert("plugins".to_owned(), json!([one]));
            list
        }
    };
    if !speaks(&list) {
        let spoken = VERSIONS.join(", ");
        return Err(format!("{name}: cniVersion: the plugin cannot be chained into a list of no version of {spoken}"));
    }
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut);
    let plugins = plugins.ok_or_else(|| format!("{name}: plugins: a list of plugins is expected"))?;
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.is_empty() {
        return Err(format!("{name}: plugins: nothing but {PLUGIN}, which makes no network by itself"));
    }
    plugins.push(plugin.clone().into());
    Ok(list.into())
}

fn written(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The name under which a list is kept that came from a file of this name.
fn list_name(name: &str) -> String {
    match name.strip_suffix(".conf").or_else(|| name.strip_suffix(".json")) {
        Some(stem) => format!("{stem}.conflist"),
        None => name.to_owned(),
    }
}

/// The file that a runtime uses, or the one that is wanted, and what it holds.
fn primary(files: &Files, wanted: &Wanted, not: &str) -> Result<(String, Existing), String> {
    if let Some(file) = &wanted.file {
        let stem = file.strip_suffix(".conflist").or_else(|| file.strip_suffix(".conf"));
        let others = stem.map(|stem| [format!("{stem}.conf"), format!("{stem}.conflist")]).into_iter().flatten();
        let found = std::iter::once(file.clone()).chain(others).find(|name| files.contains_key(name));
        let name = found.ok_or_else(|| format!("{file}: no such file"))?;
        let content = existing(&name, files.get(&name).map(String::as_str).unwrap_or_default())?;
        return Ok((name, content));
    }
    let mut refused = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| is_configuration(name) && *name != not) {
        match existing(name, text) {
            Ok(content) => return Ok((name.clone(), content)),
            Err(reason) => refused.push(reason),
        }
    }
    let why = if refused.is_empty() { String::new() } else { format!(" ({})", refused.join("; ")) };
    Err(format!("no configuration of a container network yet{why}"))
}

/// What is to be done so that the runtime uses the plugin.
pub fn plan(files: &Files, wanted: &Wanted) -> Plan {
    let planned = match &wanted.mode {
        Mode::Alone => return alone(files, wanted),
        Mode::Chained => primary(files, wanted, "").and_then(|(name, existing)| {
            let list = inserted(&name, existing, &wanted.plugin)?;
            Ok((list_name(&name), list, Some(name)))
        }),
        Mode::Owned(own) => primary(files, wanted, own).and_then(|(name, existing)| {
            let list = inserted(&name, existing, &wanted.plugin)?;
            if name < *own && wanted.file.is_none() {
                return Err(format!("{own}: comes after {name}, so that the runtime would not use it"));
            }
            Ok((own.clone(), list, None))
        }),
    };
    match planned {
        Ok((name, list, from)) => keep_or_write(files, name, &list, from),
        Err(reason) => Plan::Wait(reason),
    }
}

fn keep_or_write(files: &Files, name: String, wanted: &Value, from: Option<String>) -> Plan {
    let there = files.get(&name).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let replaces = from.filter(|from| *from != name);
    if there.as_ref() == Some(wanted) && replaces.is_none() {
        return Plan::Keep(name);
    }
    let text = written(wanted);
    // A list is deeper by two than the configuration that it was made from.
    match serde_json::from_str::<Value>(&text) {
        Ok(_) => Plan::Write { text, name, replaces },
        Err(error) => Plan::Wait(format!("{name}: could not be read again: {error}")),
    }
}

fn alone(files: &Files, wanted: &Wanted) -> Plan {
    let mut plugin = wanted.plugin.clone();
    plugin.insert("cniVersion".to_owned(), LIST_VERSION.into());
    keep_or_write(files, wanted.file.clone().unwrap_or_else(|| ALONE.to_owned()), &plugin.into(), None)
}

/// How the plugin comes out of every file that has it. Lists in which nothing else is left go.
pub fn removals(files: &Files, wanted: &Wanted) -> Vec<Removal> {
    let removal = |(name, text): (&String, &String)| {
        let gone = Some(Removal { name: name.clone(), text: None });
        if matches!(&wanted.mode, Mode::Owned(own) if own == name) {
            return gone;
        }
        match existing(name, text).ok()? {
            Existing::One(one) => gone.filter(|_| is_ours(&one.into())),
            Existing::List(mut list) => {
                let plugins = list.get_mut("plugins")?.as_array_mut()?;
                let before = plugins.len();
                plugins.retain(|plugin| !is_ours(plugin));
                match plugins.len() {
                    0 => gone,
                    left if left == before => None,
                    _ => Some(Removal { name: name.clone(), text: Some(written(&list.into())) }),
                }
            }
        }
    };
    files.iter().filter(|(name, _)| is_configuration(name)).filter_map(removal).collect()
}
