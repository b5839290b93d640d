//! Where one document ends and the next begins, and which kind a document is.

use super::de::{Context, Finding};
use super::tree::{Entry, Node, Value};
use crate::kind::{Kind, MELTEMI, MIXER};
use crate::legacy;
use crate::problem::{Severity, nearest};

/// Documents of one file, `List` items counted.
pub const MAX_DOCUMENTS: usize = 100_000;

/// Splits a YAML stream at its `---` and `...` lines, so that a syntax error stays inside its document. Yields the
/// line, counted from 1, at which each part starts.
pub fn split_documents(text: &str) -> Vec<(u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut parts, mut start, mut start_line) = (Vec::new(), 0, 1u32);
    let mut position = 0;
    for (line, content) in (1u32..).zip(text.split_inclusive('\n')) {
        let marker = content.starts_with("---") || content.starts_with("...");
        if marker && content[3..].chars().next().is_none_or(char::is_whitespace) {
            push(&mut parts, start_line, &text[start..position]);
            // What follows the dashes on the same line belongs to the new document.
            (start, start_line) = (position + 3, line);
        }
        position += content.len();
    }
    push(&mut parts, start_line, &text[start..]);
    parts
}

fn push<'a>(parts: &mut Vec<(u32, &'a str)>, line: u32, part: &'a str) {
    let blank = |l: &str| l.trim().is_empty() || l.trim_start().starts_with('#') || l.starts_with('%');
    if !part.lines().all(blank) {
        parts.push((line, part));
    }
}

/// Kinds that are not supported yet: skipped with a warning, since something was expected of them.
static NOT_YET: &[(&str, &str)] =
    &[("multicluster.x-k8s.io", "ServiceExport"), ("multicluster.x-k8s.io", "ServiceImport")];

/// Read by the commands of installations, and by nobody else.
const INSTALLATION: (&str, &str) = ("install.istio.io", "IstioOperator");

/// Kinds that Istio does not read either.
static NO_EFFECT: &[(&str, &str)] =
    &[("gateway.networking.k8s.io", "UDPRoute"), ("gateway.networking.x-k8s.io", "XMesh")];

/// Mixer's kinds that said for whom its other ones are.
const BINDINGS: &[&str] = &["rule", "QuotaSpec", "QuotaSpecBinding"];

/// The kind of a document that Meltemi reads. Reports why a document is refused or skipped.
pub(super) fn kind_of(root: &Node, context: &Context) -> Option<Kind> {
    let report = |severity, line, path: &str, message: String, suggestion: Option<&str>| {
        let suggestion = suggestion.map(str::to_owned);
        context.findings.borrow_mut().push(Finding { severity, line, path: path.into(), message, suggestion });
        None
    };
    if !matches!(root.value, Value::Map(_)) {
        let message = format!("expected a Kubernetes document, found {}", root.describe());
        return report(Severity::Error, root.line, "", message, None);
    }
    let mut names = [""; 2];
    for (name, field) in names.iter_mut().zip(["apiVersion", "kind"]) {
        match root.get(field).map(|n| (n.line, n.text())) {
            Some((_, Some(text))) if !text.is_empty() => *name = text,
            Some((line, _)) => return report(Severity::Error, line, field, "expected a name".into(), None),
            None => return report(Severity::Error, root.line, field, "required".into(), misspelt(root, field)),
        }
    }
    let [api_version, name] = names;
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let line = root.entry("kind").map_or(root.line, |e| e.line);
    let Some(kind) = Kind::find(group, name) else {
        let (severity, message, suggestion) = unknown_kind(group, api_version, name);
        return report(severity, line, "kind", message, suggestion);
    };
    if !kind.info().versions.contains(&version) {
        let message = format!("{name} has no version {version:?}; use {}", kind.api_version());
        return report(Severity::Error, root.line_of("apiVersion"), "apiVersion", message, None);
    }
    Some(kind)
}

fn misspelt<'a>(root: &'a Node, field: &str) -> Option<&'a str> {
    match &root.value {
        Value::Map(entries) => nearest(field, entries.iter().map(|e| e.key.as_str()))
            .map(|_| if field == "kind" { "kind" } else { "apiVersion" }),
        _ => None,
    }
}

fn unknown_kind(group: &str, api_version: &str, name: &str) -> (Severity, String, Option<&'static str>) {
    if NOT_YET.contains(&(group, name)) {
        return (Severity::Warning, format!("{name} of {api_version} is not supported yet; skipped"), None);
    }
    if (group, name) == INSTALLATION {
        let message = format!("{name} is for `meltemi install`, and means nothing to a mesh that runs; skipped");
        return (Severity::Notice, message, None);
    }
    if NO_EFFECT.contains(&(group, name)) {
        return (Severity::Warning, format!("{name} of {api_version} has no effect, as in Istio; skipped"), None);
    }
    if group == MIXER && BINDINGS.contains(&name) {
        let message =
            format!("{name} was removed from Istio with Mixer; a memquota limits its namespace without it; skipped");
        return (Severity::Warning, message, None);
    }
    if let Some(instead) = legacy::replacement(group, name) {
        return (Severity::Error, format!("{name} of {api_version} was removed from Istio; {instead}"), None);
    }
    let here = || Kind::all().filter(|k| k.info().group == group).map(Kind::as_str);
    if group.ends_with(".istio.io") || group == MELTEMI {
        let elsewhere = Kind::all().find(|k| k.as_str() == name && k.is_istio());
        let message = match elsewhere {
            Some(kind) => format!("{name} is in {}, not {api_version}", kind.api_version()),
            None => format!("{api_version} has no kind {name:?}"),
        };
        return (Severity::Error, message, nearest(name, here()));
    }
    if let Some(kind) = Kind::all().find(|k| k.as_str() == name && !k.is_istio() && group.contains(k.info().group)) {
        // `extensions/v1beta1` Deployment and the like.
        if matches!(group, "" | "apps" | "extensions" | "batch" | "discovery.k8s.io") {
            return (Severity::Error, format!("{name} is in {}, not {api_version}", kind.api_version()), None);
        }
    }
    match nearest(name, here()).filter(|_| matches!(group, "" | "apps")) {
        Some(known) => {
            (Severity::Warning, format!("{api_version} {name} is not a kind that a mesh reads; skipped"), Some(known))
        }
        None => (Severity::Notice, format!("{api_version} {name} means nothing to a mesh; skipped"), None),
    }
}

/// Reports every entry whose name is not among `known`.
pub(super) fn refuse_unknown(entries: &[Entry], known: &[&'static str], context: &Context) {
    for entry in entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
        context.findings.borrow_mut().push(Finding {
            severity: Severity::Error,
            line: entry.line,
            path: entry.key.clone(),
            message: format!("unknown field; a document has {}", known.join(", ")),
            suggestion: nearest(&entry.key, known.iter().copied()).map(str::to_owned),
        });
    }
}
