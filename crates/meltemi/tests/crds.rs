//! The definitions before their judge: an API server takes them all, and then takes and refuses what it should.
//!
//! Needs a cluster: `MELTEMI_KUBECTL` is the command that is its admin's kubectl, such as
//! `scripts/kubernetes/cluster ctl`. Nothing is stored but the definitions. Thousands of documents made from the schemas are
//! judged by the server and by `meltemi_config::schema`, which must say the same (`differential`).

#[path = "crds/differential.rs"]
mod differential;
#[path = "crds/generate.rs"]
mod generate;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The words of the command, if there is a cluster.
fn kubectl() -> Option<Vec<String>> {
    let words: Vec<_> =
        std::env::var("MELTEMI_KUBECTL").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        eprintln!("skipped: MELTEMI_KUBECTL names no kubectl");
        return None;
    }
    Some(words)
}

fn run(words: &[String], arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("kubectl ends");
    writer.join().expect("no panic").expect("kubectl reads");
    output
}

fn definitions() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_meltemi")).args(["x", "crds"]).output().expect("meltemi runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Names of our definitions that are not established, or have a schema that is not structural.
fn unsettled(words: &[String]) -> Vec<String> {
    let output = run(words, &["get", "crd", "-o", "json"], "");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ours = |one: &&Value| {
        one["spec"]["group"].as_str().is_some_and(|group| group.ends_with("istio.io") || group == "meltemi.io")
    };
    let settled = |one: &Value| {
        let conditions = one["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
        is("Established") && is("NamesAccepted") && !is("NonStructuralSchema")
    };
    let found: Vec<_> = list["items"].as_array().expect("items").iter().filter(ours).collect();
    assert!(found.len() >= 17, "{}", found.len());
    found.into_iter().filter(|one| !settled(one)).map(|one| one["metadata"]["name"].to_string()).collect()
}

/// A document, and a text of the refusal that it is to get.
struct Case {
    source: String,
    document: Value,
    refusal: Option<String>,
}

/// Istio's own test data, where it is at hand.
fn istios() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/api-validation");
    if !root.is_dir() {
        eprintln!("skipped: no ../shared");
        return Vec::new();
    }
    ["api-testdata", "istio-crds-testdata"].iter().flat_map(|folder| cases_of(&root.join(folder))).collect()
}

fn cases_of(folder: &Path) -> Vec<Case> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        for (i, part) in text.split("\n---").enumerate() {
            let Ok(mut document) = serde_saphyr::from_str::<Value>(part) else { continue };
            let Some(fields) = document.as_object_mut() else { continue };
            let refusal = fields.shift_remove("_err").and_then(|text| text.as_str().map(str::to_owned));
            let source = format!("{}#{i}", file.file_name().expect("a name").to_string_lossy());
            cases.push(Case { source, document, refusal });
        }
    }
    cases
}

/// Documents of our own kinds.
fn ours() -> Vec<Case> {
    let case = |kind: &str, spec: Value, refusal: Option<&str>| Case {
        source: format!("{kind} {spec}"),
        document: json!({"apiVersion": "meltemi.io/v1alpha1", "kind": kind, "metadata": {}, "spec": spec}),
        refusal: refusal.map(str::to_owned),
    };
    let limits = |spec: Value, refusal| case("RateLimitPolicy", spec, refusal);
    let resilience = |spec: Value, refusal| case("ResiliencePolicy", spec, refusal);
    let limit = json!({"requests": 1, "unit": "SECOND"});
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "a"});
    vec![
        limits(json!({"rules": [{"limit": limit, "by": [{"header": "x"}], "match": {"paths": ["/a*"]}}]}), None),
        limits(json!({"targetRefs": [gateway], "rules": []}), None),
        limits(json!({"rules": [{"limit": limit, "scope": "GLOBAL", "provider": {"address": "a:1"}}]}), None),
        limits(json!({"rules": [{"limit": {"requests": 1, "interval": "1s"}}]}), None),
        limits(json!({"rules": [{"limit": {"requests": 1}}]}), Some("needs one of unit and interval")),
        limits(json!({"rules": [{"limit": {"requests": 1, "interval": "1us"}}]}), Some("must be a valid duration")),
        limits(json!({"rules": [{}]}), Some("spec.rules[0].limit: Required value")),
        limits(json!({"rules": [{"limit": limit, "scope": "GLOBAL"}]}), Some("scope GLOBAL needs a provider")),
        limits(json!({"rules": [{"limit": limit, "provider": {"address": "a:1"}}]}), Some("and LOCAL has none")),
        limits(
            json!({"targetRefs": [{"kind": "Service", "name": "a"}]}),
            Some("only Gateways are limited by reference"),
        ),
        limits(
            json!({"targetRefs": [gateway], "selector": {"matchLabels": {"a": "b"}}}),
            Some("only one of targetRefs or selector can be set"),
        ),
        resilience(
            json!({"automaticRetries": {"maxAttempts": 3}, "adaptiveLoadBalancing": {"windowSize": "30s"}}),
            None,
        ),
        resilience(json!({"adaptiveLoadBalancing": {"windowSize": "2h"}}), Some("must be between 1s and 1h")),
        resilience(json!({"automaticRetries": {"maxAttempts": 11}}), Some("should be less than or equal to 10")),
        resilience(json!({"anomalyDetection": {"sensitivity": "LOW"}}), Some("Unsupported value: \"LOW\"")),
    ]
}

/// Cases that an API server cannot judge as they stand, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("reqauth-invalid.yaml#19", "its field, presence, is in no published definition: it is pruned"),
    ("serviceentry-valid.yaml#0", "an address that ends in colons is a key without a value in YAML 1.2"),
    ("wasm-invalid.yaml#11", "refused; servers of today take null for absent, and say so"),
    ("wasm-invalid.yaml#12", "refused; servers of today take null for absent, and say so"),
];

/// True if the answer says what is wanted. Older servers named the type of a wrong value, newer ones show the value.
fn says(answer: &str, wanted: &str) -> bool {
    let (before, after) =
        wanted.split_once("\"object\": ").or_else(|| wanted.split_once("\"integer\": ")).unwrap_or((wanted, ""));
    answer.contains(before) && answer.contains(after)
}

fn judge(words: &[String], cases: &mut [Case]) -> Vec<String> {
    let mut text = String::new();
    for (i, case) in cases.iter_mut().enumerate() {
        case.document["metadata"] = json!({"name": format!("case-{i:04}")});
        text.push_str(&format!("---\n{}\n", case.document));
    }
    let output = run(words, &["create", "--dry-run=server", "--validate=ignore", "-f", "-"], &text);
    let (taken, refused) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut wrong = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let name = format!("case-{i:04}");
        let is_taken = taken.contains(&format!("/{name} created"));
        let answer = refused.split("Error from server").find(|part| part.contains(&format!("\"{name}\"")));
        let fits = match (&case.refusal, answer) {
            (None, _) => is_taken,
            (Some(wanted), Some(answer)) => !is_taken && says(answer, wanted),
            (Some(_), None) => false,
        };
        if !fits && !OTHERWISE.iter().any(|(source, _)| *source == case.source) {
            wrong.push(format!("{}: should be {:?}: {}", case.source, case.refusal, answer.unwrap_or("taken")));
        }
    }
    wrong
}

#[test]
fn an_api_server_takes_the_definitions_and_judges_documents_by_them() {
    let Some(words) = kubectl() else { return };
    let applied = run(&words, &["apply", "--server-side", "--force-conflicts", "-f", "-"], &definitions());
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !unsettled(&words).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", unsettled(&words));
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut cases = istios();
    cases.extend(ours());
    // A schema is in force a moment after its definition is established.
    let mut wrong = judge(&words, &mut cases);
    while !wrong.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
        wrong = judge(&words, &mut cases);
    }
    println!("{} documents", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    differential::check(&words);
}
