//! WasmPlugin and TrafficExtension.

use super::{Validation, common};
use crate::extensions::{EnvironmentSource, TrafficExtension, TrafficSelector, VmConfig, WasmPlugin};
use crate::names;
use crate::path::Path;

const MAX_LUA_BYTES: usize = 65536;
const MAX_ENVIRONMENT: usize = 256;

pub(super) fn wasm_plugin(spec: &WasmPlugin, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    common::target_refs(spec.selector.is_some(), spec.target_ref.as_ref(), &spec.target_refs, at, v);
    let module = Module {
        url: &spec.url,
        sha256: &spec.sha256,
        secret: &spec.image_pull_secret,
        name: &spec.plugin_name,
        vm: spec.vm_config.as_ref(),
    };
    module.check(at, v);
    traffic(&spec.matches, at, v);
}

pub(super) fn traffic_extension(spec: &TrafficExtension, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    common::target_refs(spec.selector.is_some(), None, &spec.target_refs, at, v);
    v.require(at, spec.wasm.is_some() != spec.lua.is_some(), "exactly one of wasm or lua must be set");
    if let Some(wasm) = &spec.wasm {
        let module = Module {
            url: &wasm.url,
            sha256: &wasm.sha256,
            secret: &wasm.image_pull_secret,
            name: &wasm.plugin_name,
            vm: wasm.vm_config.as_ref(),
        };
        module.check(&at.field("wasm"), v);
    }
    if let Some(lua) = &spec.lua {
        let lua_at = at.field("lua");
        let at = lua_at.field("inlineCode");
        v.require(&at, !lua.inline_code.is_empty(), "lua.inlineCode cannot be empty");
        v.require(&at, lua.inline_code.len() <= MAX_LUA_BYTES, "lua.inlineCode exceeds maximum size of 64KB");
    }
    traffic(&spec.matches, at, v);
}

/// What the two kinds say of a module.
struct Module<'a> {
    url: &'a str,
    sha256: &'a str,
    secret: &'a str,
    name: &'a str,
    vm: Option<&'a VmConfig>,
}

impl Module<'_> {
    fn check(&self, at: &Path<'_>, v: &mut Validation) {
        v.check(&at.field("url"), module_url(self.url));
        v.check(&at.field("sha256"), sha256(self.sha256));
        v.require(&at.field("imagePullSecret"), self.secret.len() <= 253, "longer than 253 characters");
        v.require(&at.field("pluginName"), self.name.len() <= 256, "longer than 256 characters");
        if let Some(vm) = self.vm {
            environment(vm, &at.field("vmConfig"), v);
        }
    }
}

/// As Go parses it: what has no scheme is an image.
fn module_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Err("url field needs to be set".into());
    }
    let failed = || format!("failed to parse url {url:?}");
    let rest = match scheme(url).ok_or_else(failed)? {
        "" => url,
        scheme if ["oci", "http", "https", "file"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            &url[scheme.len() + 1..]
        }
        other => return Err(format!("url contains unsupported scheme: {other}")),
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    let bare = host.matches(':').count() < 2 && port.bytes().all(|b| b.is_ascii_digit());
    let port = bare || (host.starts_with('[') && host.ends_with(']')) || host.contains("]:");
    let brackets = host.starts_with('[') || !host.contains(['[', ']']);
    let readable = brackets
        && !url.contains(char::is_control)
        && !authority.contains([' ', '<', '>', '"', '^', '`', '{', '|', '}', '\\']);
    if port && readable && names::escapes_are_whole(url) { Ok(()) } else { Err(failed()) }
}

/// What stands before the colon; empty where there is no scheme. `None` if it is missing before a colon.
fn scheme(url: &str) -> Option<&str> {
    let end = url.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(url.len());
    match (url[end..].starts_with(':'), url.starts_with(|c: char| c.is_ascii_alphabetic())) {
        (true, _) if end == 0 => None,
        (true, true) => Some(&url[..end]),
        _ => Some(""),
    }
}

fn sha256(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    if text.len() != 64 {
        return Err("sha256 field must be 64 characters long");
    }
    let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex { Ok(()) } else { Err("sha256 field must match [a-f0-9]{64} pattern") }
}

fn environment(vm: &VmConfig, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("env");
    v.require(&at, vm.env.len() <= MAX_ENVIRONMENT, "at most 256 variables");
    for (i, variable) in vm.env.iter().enumerate() {
        let at = at.index(i);
        let name = at.field("name");
        v.require(&name, !variable.name.is_empty(), "spec.vmConfig.env invalid: a variable needs a name");
        v.require(&name, variable.name.len() <= 256, "longer than 256 characters");
        let duplicate = vm.env[..i].iter().any(|other| other.name == variable.name);
        v.require(&name, !duplicate, format_args!("duplicate env {:?}", variable.name));
        v.require(&at.field("value"), variable.value.len() <= 2048, "longer than 2048 characters");
        let inline = variable.value_from == EnvironmentSource::Inline || variable.value.is_empty();
        v.require(&at.field("value"), inline, "value may only be set when valueFrom is INLINE");
    }
}

fn traffic(selectors: &[TrafficSelector], at: &Path<'_>, v: &mut Validation) {
    let at = at.field("match");
    for (i, selector) in selectors.iter().enumerate() {
        let item = at.index(i);
        let at = item.field("ports");
        for (j, port) in selector.ports.iter().enumerate() {
            v.check(&at.index(j).field("number"), names::port(port.number));
        }
    }
}
