//! The same documents before an API server and before `meltemi_config::schema`: both refuse the same ones, in the same
//! places, for the same reasons.

use std::collections::BTreeSet;

use meltemi_config::Kind;
use meltemi_config::crd::{custom_resource_definitions, schema};
use serde_json::{Value, json};

use crate::generate::Generator;
use crate::run;

/// Documents of each kind.
const EACH: usize = 150;
/// What one call of kubectl carries.
const BATCH: usize = 250;

/// What a server says beyond what is said here, and why it is not.
const MORE: &[(&str, &str)] =
    &[("some validation rules were not checked", "it says so itself: rules wait until the structure is right")];

/// A refusal: its path in one notation, its reason, and all the words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    path: String,
    reason: String,
    words: String,
}

const REASONS: [&str; 7] =
    ["Required value", "Unsupported value", "Too long", "Too many", "Invalid value", "Duplicate value", "Forbidden"];

impl Said {
    /// From `path: Reason: words`. Some refusals of a server have their path at the end of the words, or in them.
    fn read(line: &str) -> Option<Self> {
        let found = REASONS.iter().filter_map(|reason| Some((line.find(&format!(": {reason}"))?, *reason))).min();
        let (at, reason) = found?;
        let words = line[at + 2 + reason.len()..].trim_start_matches(": ");
        let quoted = words.split("\" must ").next().and_then(|before| before.rsplit('"').next());
        let path = match &line[..at] {
            "<nil>" if words.contains("\" must ") => quoted.unwrap_or_default(),
            "<nil>" => words.rsplit(" in ").next().unwrap_or_default(),
            path => path,
        };
        let path = path.replace("[\"", ".").replace("\"]", "").replace('[', ".").replace(']', "");
        Some(Self { path, reason: reason.to_owned(), words: words.to_owned() })
    }
}

/// The refusals in an answer of kubectl about one document: one, or a list in brackets.
fn said_by_server(answer: &str) -> BTreeSet<Said> {
    let body = answer.split_once(" is invalid: ").map_or(answer, |(_, body)| body).trim();
    let list = body.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(body);
    let begins = |text: &str| {
        let path = text.split(": ").next().unwrap_or_default();
        (path.starts_with("spec") || path == "<nil>") && Said::read(text).is_some()
    };
    let mut refusals: Vec<String> = Vec::new();
    for part in list.split(", ") {
        match refusals.last_mut() {
            Some(last) if !begins(part) => last.push_str(&format!(", {part}")),
            _ => refusals.push(part.to_owned()),
        }
    }
    let known = |line: &&String| !MORE.iter().any(|(text, _)| line.contains(text));
    refusals.iter().filter(known).filter_map(|line| Said::read(line)).collect()
}

fn said_here(kind: Kind, document: &Value) -> BTreeSet<Said> {
    let refusals = schema(kind).expect("served").judge(document);
    refusals.iter().filter_map(|refusal| Said::read(&format!("{}: {refusal}", refusal.path))).collect()
}

/// The last words, which a server writes after the value and the path.
fn tail(words: &str) -> &str {
    let start = words.rfind("must ").into_iter().chain(words.rfind("should ")).max().unwrap_or(0);
    &words[start..]
}

fn agree(server: &BTreeSet<Said>, here: &BTreeSet<Said>) -> bool {
    let places =
        |said: &BTreeSet<Said>| -> Vec<_> { said.iter().map(|one| (one.path.clone(), one.reason.clone())).collect() };
    let repeated = |one: &Said| {
        let mut same = server.iter().filter(|other| (&other.path, &other.reason) == (&one.path, &one.reason));
        same.any(|other| one.reason == "Duplicate value" || other.words.contains(tail(&one.words)))
    };
    places(server) == places(here) && here.iter().all(repeated)
}

struct Case {
    kind: Kind,
    document: Value,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let definitions = custom_resource_definitions();
    for (seed, definition) in (1..).zip(&definitions) {
        let group = definition["spec"]["group"].as_str().expect("a group");
        let name = definition["spec"]["names"]["kind"].as_str().expect("a name");
        let kind = Kind::find(group, name).expect("a kind");
        let content = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut generator = Generator::new(seed);
        for _ in 0..EACH {
            let name = format!("case-{:05}", cases.len());
            let document = json!({"apiVersion": kind.api_version(), "kind": kind.as_str(),
                "metadata": {"name": name, "namespace": "default"}, "spec": generator.document(content)});
            cases.push(Case { kind, document });
        }
    }
    cases
}

/// The disagreements about some documents.
fn disagreements(words: &[String], cases: &[Case]) -> Vec<String> {
    let text: String = cases.iter().map(|case| format!("---\n{}\n", case.document)).collect();
    let output = run(words, &["create", "--dry-run=server", "--validate=ignore", "-f", "-"], &text);
    let (taken, refused) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let answers: Vec<_> = refused.split("Error from server").collect();
    let mut found = Vec::new();
    for case in cases {
        let name = case.document["metadata"]["name"].as_str().expect("a name");
        let is_taken = taken.contains(&format!("/{name} created"));
        let answer = answers.iter().find(|answer| answer.contains(&format!("\"{name}\" is invalid")));
        let server = answer.map(|answer| said_by_server(answer)).unwrap_or_default();
        let here = said_here(case.kind, &case.document);
        if is_taken != server.is_empty() || !agree(&server, &here) {
            let answer = answer.copied().unwrap_or(if is_taken { "taken" } else { "no answer" });
            found.push(format!("{}\n  server: {answer}\n  here: {here:?}", case.document));
        }
    }
    found
}

/// Needs the definitions in the cluster.
pub fn check(words: &[String]) {
    let cases = cases();
    let mut found = Vec::new();
    for batch in cases.chunks(BATCH) {
        found.extend(disagreements(words, batch));
    }
    let right = cases.iter().filter(|case| said_here(case.kind, &case.document).is_empty()).count();
    println!("{} documents, {right} of them taken, {} disagreements", cases.len(), found.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(right > cases.len() / 20 && right < cases.len() / 2, "{right} of {} are right", cases.len());
}
