//! What Istio says and what is said here, of the same documents.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Command, Stdio};

use meltemi_config::{Kind, Problem, Severity, crd, support};
use serde::Deserialize;
use serde_json::{Value, json};

use super::seeds::{PROXY, Seed};

/// A verdict of Istio's.
#[derive(Debug, Default, Deserialize)]
pub struct Theirs {
    /// Why the document is no message of its kind.
    #[serde(default)]
    pub unread: String,
    pub errors: Option<Vec<String>>,
    pub warnings: Option<Vec<String>>,
}

impl Theirs {
    pub fn errors(&self) -> Vec<String> {
        let unread = Some(self.unread.clone()).filter(|text| !text.is_empty());
        unread.into_iter().chain(self.errors.iter().flatten().cloned()).collect()
    }

    pub fn warnings(&self) -> &[String] {
        self.warnings.as_deref().unwrap_or_default()
    }
}

pub fn of_document(seed: &Seed) -> Value {
    json!({"kind": seed.kind, "document": seed.document})
}

/// To one of Istio's small checks.
pub fn of_text(function: &str, text: &str) -> Value {
    json!({"function": function, "args": [text]})
}

/// Asks the program at the path, all in one run.
pub fn peer(program: &str, questions: Vec<Value>) -> Vec<Theirs> {
    let mut command = Command::new(program);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer starts");
    let mut into = BufWriter::new(child.stdin.take().expect("piped"));
    let count = questions.len();
    let writer = std::thread::spawn(move || {
        questions.iter().try_for_each(|question| writeln!(into, "{question}")).expect("the peer reads");
    });
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let verdicts: Vec<Theirs> =
        out.lines().map(|line| serde_json::from_str(&line.expect("a line")).expect("a verdict")).collect();
    writer.join().expect("no panic");
    assert!(child.wait().expect("the peer ends").success());
    assert_eq!(verdicts.len(), count);
    verdicts
}

/// What is said here.
#[derive(Debug, Default)]
pub struct Ours {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// The definition of the kind refuses it, so that no webhook gets to see it.
    pub by_definition: bool,
}

/// Without the notes on what is not enforced.
pub fn here(seed: &Seed) -> Ours {
    let text = seed.document.to_string();
    let (problems, by_definition) = match seed.kind.as_str() {
        "MeshConfig" => (mesh_config(&text), false),
        "MeshNetworks" => (of_settings(meltemi_config::parse_mesh_networks("f", &text)), false),
        PROXY => (of_settings(meltemi_config::parse_proxy_config("f", &text)), false),
        _ => (objects(&text), definition_refuses(&seed.document)),
    };
    let (errors, warnings) = problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    Ours { errors, warnings, by_definition }
}

fn of_settings<T>(read: Result<meltemi_config::Settings<T>, Vec<Problem>>) -> Vec<Problem> {
    read.map_or_else(|problems| problems, |settings| settings.warnings)
}

fn mesh_config(text: &str) -> Vec<Problem> {
    let settings = match meltemi_config::parse_mesh_config("f", text) {
        Ok(settings) => settings,
        Err(problems) => return problems,
    };
    let notes = support::unsupported_mesh(&settings.value);
    let noted =
        |problem: &Problem| notes.iter().any(|note| note.path == problem.path && note.message == problem.message);
    settings.warnings.into_iter().filter(|problem| !noted(problem)).collect()
}

fn objects(text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for document in meltemi_config::parse_documents("f", text) {
        let notes = document.object.as_ref().map(support::unsupported).unwrap_or_default();
        let noted =
            |problem: &Problem| notes.iter().any(|note| note.path == problem.path && note.message == problem.message);
        problems.extend(document.check_meaning().into_iter().filter(|problem| !noted(problem)));
    }
    problems
}

fn definition_refuses(document: &Value) -> bool {
    let text = |field: &str| document[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let schema = Kind::find(group, text("kind")).and_then(crd::schema);
    schema.is_some_and(|schema| !schema.judge(document).is_empty())
}
