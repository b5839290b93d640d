//! From the text of a file to typed documents: splitting, envelope, kind, metadata, spec.
//!
//! Owns: which documents a file holds and what is wrong with their form. Never decides whether a value makes sense
//! (`validate` does). A broken document never hides another one of the same file.

mod de;
mod documents;
mod mesh_map;
mod removed;
mod tree;

use serde::Deserialize;

use self::de::{Context, Finding, NodeDeserializer};
use self::tree::{Entry, Node, SyntaxError, Value};
use crate::crd;
use crate::kind::{Kind, Shape};
use crate::mesh::{MeshConfig, MeshNetworks, ProxyConfig};
use crate::object::{Key, Meta, Object, OwnerReference, Spec};
use crate::path::Path;
use crate::problem::{Problem, Severity, Source};
use crate::rate_limit::RateLimitConfiguration;
use crate::schema::{Definitions, Refusal};
use crate::validate;
use crate::wire::{Ignored, Str, message};

pub use documents::{MAX_DOCUMENTS, split_documents};
pub(crate) use tree::camel_case;

/// One document of a file.
#[derive(Debug, Clone)]
pub struct Document {
    pub source: Source,
    /// Kind, namespace and name, where they could be read, even when the rest is broken.
    pub key: Option<Key>,
    /// `None` when the document is broken or was skipped.
    pub object: Option<Object>,
    /// What is wrong with its form.
    pub problems: Vec<Problem>,
    root: Option<Node>,
}

impl Document {
    /// The line of a field path, or of the nearest field above it that was written.
    pub fn line_of(&self, path: &str) -> u32 {
        self.root.as_ref().map_or(self.source.line, |root| root.line_of(path))
    }

    /// The document as it was written, where that could be read, even when it was skipped.
    pub fn value(&self) -> Option<serde_json::Value> {
        self.root.as_ref().map(Node::json)
    }

    /// True when nothing in `problems` is an error.
    pub fn is_readable(&self) -> bool {
        self.problems.iter().all(|p| p.severity < Severity::Error)
    }

    /// Everything that is wrong with the document: its form, its meaning, what a cluster's definition of its kind demands,
    /// and what is not enforced yet. In file order.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.check_meaning();
        if let Some(object) = &self.object {
            problems.extend(self.found(validate::metadata(object)));
        }
        problems.extend(self.judged(&problems));
        problems.sort_by_key(|p| p.source.line);
        problems
    }

    /// As [`Document::check`], without the definition: what Istio's webhook looks at.
    pub fn check_meaning(&self) -> Vec<Problem> {
        let mut problems = self.check_stored();
        if let Some(object) = &self.object {
            problems.extend(self.found(validate::messages(object)));
        }
        problems.sort_by_key(|p| p.source.line);
        problems
    }

    /// As [`Document::check_meaning`], of an object that a cluster holds: its parts that are messages of Envoy's are not read.
    pub fn check_stored(&self) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        if let Some(object) = &self.object {
            let mut found = validate::validate(object);
            found.warnings.extend(crate::support::unsupported(object));
            problems.extend(self.found(found));
        }
        problems.sort_by_key(|p| p.source.line);
        problems
    }

    fn found(&self, found: validate::Validation) -> impl Iterator<Item = Problem> {
        let errors = found.errors.into_iter().map(|finding| (Severity::Error, finding));
        let warnings = found.warnings.into_iter().map(|finding| (Severity::Warning, finding));
        errors.chain(warnings).map(|(severity, finding)| self.problem(severity, finding))
    }

    /// What a cluster with these definitions would refuse it for.
    pub fn judge_by(&self, definitions: &Definitions) -> Vec<Problem> {
        let Some(root) = &self.root else { return Vec::new() };
        let refusals = definitions.judge(&root.json()).into_iter();
        let finding = |refusal: Refusal| validate::Finding { path: refusal.path.clone(), message: refusal.to_string() };
        refusals.map(|refusal| self.problem(Severity::Error, finding(refusal))).collect()
    }

    /// What an API server would refuse it for beyond what is known already.
    fn judged(&self, known: &[Problem]) -> Vec<Problem> {
        let (Some(object), Some(root)) = (&self.object, &self.root) else { return Vec::new() };
        let Some(schema) = crd::schema(object.kind()) else { return Vec::new() };
        let mut document = root.json();
        let lenient = schema.make_strict(&mut document);
        let refused = schema.judge(&document).into_iter();
        let refused = refused.map(|refusal| (refusal.path.clone(), refusal.to_string()));
        let errors = refused.filter(|(path, _)| !known.iter().any(|problem| is_about(problem, path)));
        let found = |severity| move |(path, message)| self.problem(severity, validate::Finding { path, message });
        errors.map(found(Severity::Error)).chain(lenient.into_iter().map(found(Severity::Warning))).collect()
    }

    fn problem(&self, severity: Severity, found: validate::Finding) -> Problem {
        let line = self.line_of(&found.path);
        Problem {
            severity,
            source: Source { file: self.source.file.clone(), line },
            object: self.key.clone(),
            path: found.path,
            message: found.message,
            suggestion: None,
        }
    }
}

/// True for an error at the path, within it or around it.
fn is_about(problem: &Problem, path: &str) -> bool {
    let (short, long) = if problem.path.len() < path.len() { (&*problem.path, path) } else { (path, &*problem.path) };
    let rest = long.strip_prefix(short);
    problem.severity == Severity::Error && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The namespace of documents that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Reads every document of a file: YAML (any number of documents) or JSON, `List` kinds expanded.
pub fn parse_documents(file: &str, text: &str) -> Vec<Document> {
    parse_documents_in(file, text, DEFAULT_NAMESPACE)
}

/// As [`parse_documents`]; documents that name no namespace are in this one.
pub fn parse_documents_in(file: &str, text: &str, namespace: &str) -> Vec<Document> {
    let mut out = Vec::new();
    for (first_line, part) in split_documents(text) {
        if out.len() >= MAX_DOCUMENTS {
            out.push(broken(&file.into(), first_line, format!("more than {MAX_DOCUMENTS} documents in one file")));
            break;
        }
        out.extend(parse_part_in(file, first_line, part, namespace));
    }
    out
}

/// A part of a file, as it was written.
struct Part<'a> {
    file: &'a Str,
    /// Empty where it was no text.
    text: &'a str,
    first_line: u32,
    /// Of documents that name none.
    namespace: &'a str,
}

/// The text of a file; or what is wrong with it, at the line of the first byte that is not UTF-8.
pub fn decode(file: &str, bytes: Vec<u8>) -> Result<String, Box<Problem>> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        let source = Source { file: file.into(), line: u32::try_from(line).unwrap_or(u32::MAX) };
        Box::new(file_error(source, format!("not UTF-8: a byte {:#04x}", bytes[at])))
    })
}

fn file_error(source: Source, message: String) -> Problem {
    Problem { severity: Severity::Error, source, object: None, path: String::new(), message, suggestion: None }
}

/// Reads one part of a file, as `split_documents` yields it: one document, or those of a `List`.
pub fn parse_part(file: &str, first_line: u32, part: &str) -> Vec<Document> {
    parse_part_in(file, first_line, part, DEFAULT_NAMESPACE)
}

fn parse_part_in(file: &str, first_line: u32, part: &str, namespace: &str) -> Vec<Document> {
    let file = Str::from(file);
    let mut out = Vec::new();
    read(&Part { file: &file, text: part, first_line, namespace }, Node::parse(part, first_line), &mut out);
    out
}

fn read(part: &Part<'_>, node: Result<Option<Node>, SyntaxError>, out: &mut Vec<Document>) {
    match node {
        Ok(Some(node)) => read_node(part, node, out),
        Ok(None) => {}
        Err(error) => out.push(broken(part.file, error.line, error.message)),
    }
}

/// Reads a document that is a JSON value already, or those of a `List`, as [`parse_part`] reads the value's text on one line.
pub fn parse_value(file: &str, value: serde_json::Value) -> Vec<Document> {
    let file = Str::from(file);
    let part = Part { file: &file, text: "", first_line: 1, namespace: DEFAULT_NAMESPACE };
    let mut out = Vec::new();
    read(&part, Node::of_json(value, part.first_line), &mut out);
    out
}

/// Reads and validates a file; either all its objects or all that is wrong. Warnings are not reported.
pub fn objects(file: &str, text: &str) -> Result<Vec<Object>, Vec<Problem>> {
    let documents = parse_documents(file, text);
    let errors: Vec<_> = documents.iter().flat_map(Document::check).filter(|p| p.severity == Severity::Error).collect();
    if errors.is_empty() { Ok(documents.into_iter().filter_map(|d| d.object).collect()) } else { Err(errors) }
}

/// A settings document with what is worth saying about it.
#[derive(Debug, Clone)]
pub struct Settings<T> {
    pub value: T,
    pub warnings: Vec<Problem>,
}

/// Reads a MeshConfig document over Istio's defaults and validates it.
pub fn parse_mesh_config(file: &str, text: &str) -> Result<Settings<MeshConfig>, Vec<Problem>> {
    let check = |config: &MeshConfig| {
        let mut found = validate::mesh_config(config);
        found.warnings.extend(crate::support::unsupported_mesh(config));
        found
    };
    let mut settings = read_settings::<MeshConfig>(file, text, check)?;
    settings.value.complete_providers();
    Ok(settings)
}

/// Reads a MeshNetworks document and validates it.
pub fn parse_mesh_networks(file: &str, text: &str) -> Result<Settings<MeshNetworks>, Vec<Problem>> {
    read_settings(file, text, validate::mesh_networks)
}

/// Reads a ProxyConfig (the annotation `proxy.istio.io/config`) over Istio's defaults and validates it.
pub fn parse_proxy_config(file: &str, text: &str) -> Result<Settings<ProxyConfig>, Vec<Problem>> {
    read_settings(file, text, validate::proxy_config)
}

/// Reads a rate limit server's document, in the format of Envoy's reference server, and validates it.
pub fn parse_rate_limit_configuration(
    file: &str,
    text: &str,
) -> Result<Settings<RateLimitConfiguration>, Vec<Problem>> {
    read_settings(file, text, validate::rate_limit_configuration)
}

fn read_settings<T: Default + for<'de> Deserialize<'de>>(
    file: &str,
    text: &str,
    check: fn(&T) -> validate::Validation,
) -> Result<Settings<T>, Vec<Problem>> {
    let source = |line| Source { file: file.into(), line };
    let problem = |severity, line, path, message, suggestion| Problem {
        severity,
        source: source(line),
        object: None,
        path,
        message,
        suggestion,
    };
    let root =
        Node::parse(text, 1).map_err(|e| vec![problem(Severity::Error, e.line, String::new(), e.message, None)])?;
    let Some(root) = root else { return Ok(Settings { value: T::default(), warnings: Vec::new() }) };
    let context = Context::new(true);
    let value = read_part::<T>(&root, "", &context);
    let mut problems: Vec<_> = context
        .findings
        .into_inner()
        .into_iter()
        .map(|f| problem(f.severity, f.line, f.path, f.message, f.suggestion))
        .collect();
    let value = value.unwrap_or_default();
    if problems.iter().all(|p| p.severity < Severity::Error) {
        let found = check(&value);
        let errors = found.errors.into_iter().map(|f| (Severity::Error, f));
        for (severity, f) in errors.chain(found.warnings.into_iter().map(|f| (Severity::Warning, f))) {
            problems.push(problem(severity, root.line_of(&f.path), f.path, f.message, None));
        }
    }
    if problems.iter().any(|p| p.severity == Severity::Error) {
        Err(problems)
    } else {
        Ok(Settings { value, warnings: problems })
    }
}

/// Deserializes a node; its errors become findings.
fn read_part<T: for<'de> Deserialize<'de>>(node: &Node, at: &str, context: &Context) -> Option<T> {
    let path = Path::root(at);
    context.read(|| T::deserialize(NodeDeserializer { node, path: &path, context }))
}

fn broken(file: &Str, line: u32, message: String) -> Document {
    let source = Source { file: file.clone(), line };
    Document { problems: vec![file_error(source.clone(), message)], source, key: None, object: None, root: None }
}

/// Reads one YAML document: an object, or a list of them.
fn read_node(part: &Part<'_>, node: Node, out: &mut Vec<Document>) {
    let is_list = node.get("kind").and_then(Node::text).is_some_and(|k| k.ends_with("List"));
    let Some(position) = is_list.then(|| items_position(&node)).flatten() else {
        out.push(read_document(part, node));
        return;
    };
    let Value::Map(mut entries) = node.value else { return };
    if let Value::List(items) = entries.swap_remove(position).node.value {
        for item in items {
            if out.len() >= MAX_DOCUMENTS {
                out.push(broken(part.file, item.line, format!("more than {MAX_DOCUMENTS} documents in one file")));
                return;
            }
            out.push(read_document(part, item));
        }
    }
}

fn items_position(node: &Node) -> Option<usize> {
    match &node.value {
        Value::Map(entries) => entries.iter().position(|e| e.key == "items" && matches!(e.node.value, Value::List(_))),
        _ => None,
    }
}

fn read_document(part: &Part<'_>, mut root: Node) -> Document {
    let file = part.file;
    let source = Source { file: file.clone(), line: root.line };
    let context = Context::new(true);
    let kind = documents::kind_of(&root, &context);
    let mut key = None;
    let object = kind.and_then(|kind| {
        let meta = read_meta(&root, &source, &context).map(|meta| meta.placed(kind, part.namespace));
        key = meta.as_ref().map(|meta| Key { kind, namespace: meta.namespace.clone(), name: meta.name.clone() });
        let spec = read_spec(&mut root, kind, &context);
        Some(Object::new(meta?, spec?))
    });
    if let Some(object) = &object {
        context.findings.borrow_mut().extend(mesh_map::findings(object, &root, part));
    }
    let problems: Vec<_> = context
        .findings
        .into_inner()
        .into_iter()
        .map(|f| Problem {
            severity: f.severity,
            source: Source { file: file.clone(), line: f.line },
            object: key.clone(),
            path: f.path,
            message: f.message,
            suggestion: f.suggestion,
        })
        .collect();
    let object = object.filter(|_| problems.iter().all(|p| p.severity < Severity::Error));
    Document { source, key, object, problems, root: Some(root) }
}

message! {
    struct RawMeta {
        name: Str,
        namespace: Str,
        generate_name: Str,
        labels: std::collections::BTreeMap<Str, Str>,
        annotations: std::collections::BTreeMap<Str, Str>,
        creation_timestamp: Str,
        deletion_timestamp: Str,
        uid: Str,
        resource_version: Str,
        generation: i64,
        owner_references: Vec<RawOwner>,
        cluster_name: Ignored,
        deletion_grace_period_seconds: Ignored,
        finalizers: Ignored,
        managed_fields: Ignored,
        self_link: Ignored,
    }

    struct RawOwner {
        api_version: Ignored,
        kind: Str,
        name: Str,
        uid: Ignored,
        controller: bool,
        block_owner_deletion: Ignored,
    }
}

fn read_meta(root: &Node, source: &Source, context: &Context) -> Option<Meta> {
    let fail = |line: u32, path: &str, message: &str| {
        let (path, message) = (path.to_owned(), message.to_owned());
        context.findings.borrow_mut().push(Finding {
            severity: Severity::Error,
            line,
            path,
            message,
            suggestion: None,
        });
    };
    let Some(node) = root.get("metadata") else {
        fail(root.line, "metadata.name", "required");
        return None;
    };
    let raw: RawMeta = read_part(node, "metadata", context)?;
    if raw.name.is_empty() {
        let generated =
            if raw.generate_name.is_empty() { "required" } else { "required; `generateName` needs a server" };
        fail(node.line, "metadata.name", generated);
        return None;
    }
    let time = |text: &Str, path: &str| {
        if text.is_empty() {
            return None;
        }
        let parsed = text.parse::<jiff::Timestamp>().ok();
        if parsed.is_none() {
            fail(root.line_of(path), path, "not an RFC 3339 time, such as 2026-01-02T03:04:05Z");
        }
        parsed
    };
    Some(Meta {
        creation_timestamp: time(&raw.creation_timestamp, "metadata.creationTimestamp"),
        deletion_timestamp: time(&raw.deletion_timestamp, "metadata.deletionTimestamp"),
        namespace: raw.namespace,
        name: raw.name,
        labels: raw.labels,
        annotations: raw.annotations,
        uid: raw.uid,
        resource_version: raw.resource_version,
        generation: raw.generation,
        owner_references: raw
            .owner_references
            .into_iter()
            .map(|o| OwnerReference { kind: o.kind, name: o.name, controller: o.controller })
            .collect(),
        source: Some(source.clone()),
    })
}

fn read_spec(root: &mut Node, kind: Kind, context: &Context) -> Option<Spec> {
    let line = root.line;
    let Value::Map(entries) = &mut root.value else { return None };
    match kind.info().shape {
        Shape::Spec => {
            documents::refuse_unknown(entries, &["apiVersion", "kind", "metadata", "spec", "status"], context);
            let empty = Node { line, value: Value::Map(Vec::new()) };
            let node = root.get("spec").filter(|n| !matches!(n.value, Value::Null)).unwrap_or(&empty);
            if kind.is_protobuf() {
                return spec(node, "spec", kind, context);
            }
            read_strictly(node, "spec", kind, context)
        }
        Shape::Document => {
            let is_envelope = |entry: &Entry| matches!(entry.key.as_str(), "apiVersion" | "kind" | "metadata");
            let (envelope, content): (Vec<_>, Vec<_>) = std::mem::take(entries).into_iter().partition(is_envelope);
            let content = Node { line, value: Value::Map(content) };
            let read = read_strictly(&content, "", kind, context);
            // The document is whole again: its lines are asked for later.
            entries.extend(envelope);
            if let Value::Map(content) = content.value {
                entries.extend(content);
            }
            read
        }
    }
}

/// Under the names of Kubernetes' own fields alone.
fn read_strictly(node: &Node, at: &str, kind: Kind, context: &Context) -> Option<Spec> {
    let strict = Context::new(false);
    let read = spec(node, at, kind, &strict);
    context.findings.borrow_mut().extend(strict.findings.into_inner());
    read
}

fn spec(node: &Node, at: &str, kind: Kind, context: &Context) -> Option<Spec> {
    let path = Path::root(at);
    context.read(|| Spec::deserialize(kind, NodeDeserializer { node, path: &path, context }))
}

#[cfg(test)]
mod tests;
