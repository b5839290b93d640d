//! Istio's own code as a peer: generated policies become the same messages there and here.
//!
//! `scripts/authz-peer/run.sh` builds the peer and names it in `MELTEMI_AUTHZ_PEER`; without it the test says so and passes. `SEED`
//! chooses other policies, `SETS` how many.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

mod generate;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use meltemi_config::validate;
use meltemi_explain::case::{compare_policies, play_policies};
use serde_json::{Value, json};

use generate::{Policies, Random};

/// Of so many sets one is tried with requests as well, which takes its time.
const TRIED: u64 = 40;

/// A condition about principals beside several sources is given the other trust domains once for each of them there, over what it
/// was given before: the same alternatives again. Requests then show that it means the same.
const REPEATED: &str = "or_ids.ids: expected [{\"authenticated\"";

/// Keys that only begin like ones that there are: Istio takes them, we refuse them.
const ALMOST: [&str; 2] = ["request.headersX[a]", "experimental.envoy.filters.[c]"];

struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    fn start(program: &str) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.stdin, "{request}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} of {request}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A folder with a case of what the peer answered.
fn case(folder: &Path, policies: &Policies, kind: &str, custom: bool, expected: &[Value]) {
    let files: Vec<String> = (0..expected.len()).map(|index| format!("expected-{index}.yaml")).collect();
    for (file, message) in files.iter().zip(expected) {
        std::fs::write(folder.join(file), message.to_string()).unwrap();
    }
    let case = json!({
        "filter_kind": kind,
        "action_set": if custom { "custom" } else { "local" },
        "expected": files,
        "mesh_config": policies.mesh,
        "trust_domain": policies.trust_domains.first(),
        "trust_domain_aliases": policies.trust_domains.get(1..).unwrap_or_default(),
        "several_authorizers": policies.several,
    });
    std::fs::write(folder.join("case.yaml"), case.to_string()).unwrap();
    std::fs::write(folder.join("input.yaml"), policies.text()).unwrap();
}

fn ambient_case(folder: &Path, document: &Value, expected: &Value) {
    let case = json!({"kind": "AuthorizationPolicy", "expect_none": expected.is_null()});
    std::fs::write(folder.join("expected.yaml"), expected.to_string()).unwrap();
    std::fs::write(folder.join("case.yaml"), case.to_string()).unwrap();
    std::fs::write(folder.join("input.yaml"), document.to_string()).unwrap();
}

/// What differs in a set of policies.
fn differences(folder: &Path, policies: &Policies, answer: &Value, tried: bool, seed: u64) -> Vec<String> {
    let mut found = Vec::new();
    let mut play = |what: &str| {
        let problems = compare_policies(folder).unwrap_or_else(|error| vec![error.to_string()]);
        let is_repeated = problems.iter().any(|problem| problem.contains(REPEATED));
        let others = problems.into_iter().filter(|problem| !problem.contains(REPEATED));
        found.extend(others.map(|problem| format!("{what}: {problem}")));
        if tried || is_repeated {
            let judged = play_policies(folder, seed).unwrap();
            found.extend(judged.disagreement().map(|disagreement| format!("{what}: {disagreement:?}")));
        }
    };
    for kind in ["http", "tcp"] {
        for (custom, name) in [(true, "custom"), (false, "local")] {
            let name = format!("{kind}_{name}");
            case(folder, policies, kind, custom, answer[&name].as_array().unwrap());
            play(&name);
        }
    }
    for (document, expected) in policies.documents.iter().zip(answer["ambient"].as_array().unwrap()) {
        ambient_case(folder, document, expected);
        play("ambient");
    }
    found
}

fn is_valid(policies: &Policies) -> bool {
    let documents = meltemi_config::parse_documents("policies", &policies.text());
    documents.iter().all(|document| {
        let object = document.object.as_ref();
        document.problems.is_empty() && object.is_some_and(|object| validate(object).errors.is_empty())
    })
}

#[test]
fn istios_own_code_makes_the_same_of_policies() {
    let Ok(program) = std::env::var("MELTEMI_AUTHZ_PEER") else {
        println!("skipped: MELTEMI_AUTHZ_PEER does not name the peer (scripts/authz-peer/run.sh)");
        return;
    };
    let (seed, sets) = (number("SEED", 1), number("SETS", 400));
    let mut peer = Peer::start(&program);
    let folder = tempfile::tempdir().unwrap();
    let (mut failures, mut refused) = (Vec::new(), 0);
    for set in 0..sets {
        let policies = Policies::generate(&mut Random::new(seed.wrapping_mul(1_000_003).wrapping_add(set)));
        let answer = peer.ask(&json!({"policies": policies.text(), "mesh": policies.mesh,
            "trust_domains": policies.trust_domains, "several": policies.several}));
        assert_eq!(answer["error"], Value::Null, "{}", policies.text());
        let reasons = answer["refusals"].as_array().unwrap();
        let is_almost = reasons.is_empty() && ALMOST.iter().any(|key| policies.text().contains(key));
        if is_valid(&policies) != (reasons.is_empty() && !is_almost) {
            failures.push(format!("set {set}: validation differs: {reasons:?}\n{}", policies.text()));
        }
        if is_almost || !reasons.is_empty() {
            // What is refused comes to no proxy.
            refused += 1;
            continue;
        }
        let tried = set % TRIED == 0;
        let found = differences(folder.path(), &policies, &answer, tried, seed);
        if !found.is_empty() {
            failures.push(format!("set {set}:\n{}mesh {}\n{}", policies.text(), policies.mesh, found.join("\n")));
        }
    }
    println!("{sets} sets of policies, {refused} of them refused, {} differ", failures.len());
    assert!(refused < sets / 2, "most policies are refused: that proves little");
    assert!(failures.is_empty(), "{}", failures[..failures.len().min(5)].join("\n\n"));
}
