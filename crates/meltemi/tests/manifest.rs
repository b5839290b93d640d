//! The commands that need no cluster: `manifest`, `profile`, `tag generate`, run as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run said, and its exit code.
struct Run {
    code: i32,
    out: String,
    err: String,
}

fn meltemi(arguments: &[&str], input: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meltemi"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn document(spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n{indented}")
}

fn names(objects: &Value) -> Vec<String> {
    let name = |object: &Value| {
        format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    objects.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn manifests_are_yaml_and_json_of_the_same_objects() {
    let yaml = meltemi(&["manifest", "generate", "--set", "profile=minimal"], "");
    assert_eq!(yaml.code, 0, "{}", yaml.err);
    let json = meltemi(&["manifest", "generate", "--set", "profile=minimal", "-o", "json"], "");
    let objects: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(yaml.out.matches("\nkind: ").count(), names(&objects).len());
    assert_eq!(names(&objects)[0], "Namespace/istio-system");
    let pilot = meltemi(&["manifest", "generate", "--component", "ingressgateways", "-o", "json"], "");
    let objects: Value = serde_json::from_str(&pilot.out).unwrap();
    assert!(names(&objects).iter().all(|name| name.contains("istio-ingressgateway")), "{objects}");
}

#[test]
fn retired_fields_are_warnings_and_errors_when_strict() {
    let input = document("profile: minimal\ncomponents:\n  citadel:\n    enabled: true\n");
    let run = meltemi(&["manifest", "generate", "-f", "-", "--manifests", "/charts"], &input);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("warning: stdin: spec.components.citadel: has no effect"), "{}", run.err);
    assert!(run.err.contains("warning: --manifests: has no effect"), "{}", run.err);
    let strict = meltemi(&["manifest", "generate", "-f", "-", "--strict"], &input);
    assert_eq!(strict.code, 65);
    assert!(strict.out.is_empty() && strict.err.contains("error: stdin: spec.components.citadel"), "{}", strict.err);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let code_and_error = |arguments: &[&str], input: &str| {
        let run = meltemi(arguments, input);
        (run.code, run.err)
    };
    let generate = ["manifest", "generate", "-f", "-"];
    let (code, error) = code_and_error(&generate, &document("components:\n  pilot:\n    enabled: 3\n"));
    assert_eq!(code, 65);
    assert!(error.contains("error: stdin: spec.components.pilot.enabled: is a number, not a boolean"), "{error}");
    let (code, error) = code_and_error(&generate, "kind: [");
    assert_eq!(code, 65);
    assert!(error.contains("error: stdin: from line 1"), "{error}");
    let (code, error) = code_and_error(&["manifest", "generate", "-f", "/nowhere.yaml"], "");
    assert_eq!(code, 1);
    assert!(error.contains("/nowhere.yaml"), "{error}");
    let (code, _) = code_and_error(&["manifest", "generate", "--component", "mixer"], "");
    assert_eq!(code, 2);
    let (code, error) = code_and_error(&["manifest", "generate", "--set", "values.global.proxy.tracer=lightstep"], "");
    assert_eq!(code, 65);
    assert!(error.contains("extension providers"), "{error}");
}

#[test]
fn profiles_are_listed_dumped_and_compared() {
    let list = meltemi(&["profile", "list"], "");
    assert!(list.out.lines().any(|line| line.starts_with("demo ")), "{}", list.out);
    let dump = meltemi(&["profile", "dump", "demo", "-p", "values.pilot.traceSampling"], "");
    assert_eq!((dump.code, &*dump.out), (0, "100\n"), "{}", dump.err);
    let missing = meltemi(&["profile", "dump", "demo", "-p", "values.nothing"], "");
    assert_eq!(missing.code, 65);
    let diff = meltemi(&["profile", "diff", "default", "minimal"], "");
    assert_eq!(diff.code, 1);
    let expected = "\
- components.ingressGateways: [{\"name\":\"istio-ingressgateway\",\"enabled\":true}]
+ components.ingressGateways: [{\"name\":\"istio-ingressgateway\",\"enabled\":false}]
";
    assert_eq!(diff.out, expected);
    let wide = meltemi(&["profile", "diff", "default", "demo"], "").out;
    assert!(wide.contains("+ values.pilot.traceSampling: 100\n") && !wide.contains("- values"), "{wide}");
    assert_eq!(meltemi(&["profile", "diff", "default", "default"], "").code, 0);
    assert_eq!(meltemi(&["profile", "diff", "default", "none"], "").code, 65);
}

#[test]
fn charts_and_their_values_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    let charts = meltemi(&["manifest", "charts", "-d", &at], "");
    assert_eq!(charts.code, 0, "{}", charts.err);
    for file in ["base/Chart.yaml", "istiod/templates/injector.yaml", "gateway/values.yaml", "cni/values.schema.json"] {
        assert!(dir.path().join(file).is_file(), "{file}");
    }
    let input = document("hub: example.com/mesh\ncomponents:\n  pilot:\n    k8s:\n      priorityClassName: high\n");
    let translated = meltemi(&["manifest", "translate", "-f", "-", "-o", &at], &input);
    assert_eq!(translated.code, 0, "{}", translated.err);
    assert!(translated.err.contains("k8s.priorityClassName: is no value of the chart"), "{}", translated.err);
    assert!(
        translated.out.contains("helm upgrade --install istiod ./charts/istiod --namespace istio-system"),
        "{}",
        translated.out
    );
    let values = std::fs::read_to_string(dir.path().join("istiod.yaml")).unwrap();
    assert!(values.contains("  hub: example.com/mesh\n"), "{values}");
}

#[test]
fn tags_are_generated_and_names_that_are_none_refused() {
    let tag = meltemi(&["tag", "generate", "prod", "--revision", "canary"], "");
    assert_eq!(tag.code, 0, "{}", tag.err);
    assert!(tag.out.contains("name: istio-revision-tag-prod\n"), "{}", tag.out);
    let wrong = meltemi(&["tag", "generate", "Prod", "--revision", "canary"], "");
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("TAG \"Prod\": is no DNS label"), "{}", wrong.err);
}

#[test]
fn without_a_cluster_the_reason_is_said() {
    let expected = "error: no cluster is known here: there is no /nowhere/config; --kubeconfig names another file\n";
    let named = meltemi(&["install", "-y", "-c", "/nowhere/config"], "");
    assert_eq!((named.code, &*named.err), (1, expected));
    let mut found = Command::new(env!("CARGO_BIN_EXE_meltemi"));
    found.args(["tag", "list"]).env("KUBECONFIG", "/nowhere/config").env_remove("KUBERNETES_SERVICE_HOST");
    let found = found.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stderr), expected);
}

#[test]
fn what_a_broken_kubeconfig_holds_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config").display().to_string();
    std::fs::write(&path, "users:\n- user: {token: s3cret}\n  user: {token: s3cret}\n").unwrap();
    let run = meltemi(&["install", "-y", "-c", &path], "");
    assert!(run.err.starts_with(&format!("error: no cluster is known here: {path}: ")), "{}", run.err);
    assert!(!run.err.contains("s3cret") && run.err.lines().count() == 1, "{}", run.err);
}

#[test]
fn validate_judges_an_installation_as_install_does() {
    let validate = |spec: &str| {
        let run = meltemi(&["validate", "-f", "-"], &document(spec));
        (run.code, run.out)
    };
    let (code, said) = validate("components:\n  galley:\n    enabled: true\n");
    assert_eq!(code, 0);
    assert!(said.starts_with("stdin:5: warning: spec.components.galley: has no effect: "), "{said}");
    assert!(said.ends_with("1 document, 0 errors, 1 warning\n"), "{said}");
    let (code, said) = validate("components:\n  pilot:\n    enabled: 3\n");
    assert_eq!(code, 65);
    assert!(said.starts_with("stdin:6: error: spec.components.pilot.enabled: is a number, not a boolean\n"), "{said}");
    let (code, said) = validate("profile: lavish\n");
    assert_eq!(code, 65);
    assert!(said.contains("error: spec.profile: \"lavish\": one of "), "{said}");
}

/// `helm`, where there is one.
fn helm() -> Option<std::path::PathBuf> {
    let home = || std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/meltemi");
    let cache = std::env::var_os("MELTEMI_CACHE").map_or_else(home, std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([cache.join("tools/bin")]).collect::<Vec<_>>();
    places.into_iter().map(|place| place.join("helm")).find(|program| program.is_file())
}

/// Objects by kind and name, with the documents that they hold read.
fn by_name(objects: Vec<Value>) -> std::collections::BTreeMap<String, Value> {
    let read = |mut object: Value| {
        for (_, text) in object["data"].as_object_mut().into_iter().flatten() {
            if let Some(document) = text.as_str().and_then(|text| meltemi_install::yaml::read(text).ok()) {
                *text = document;
            }
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        (name, object)
    };
    objects.into_iter().filter(|object| !object.is_null() && object["kind"] != "Namespace").map(read).collect()
}

#[test]
fn helm_makes_the_same_objects_of_the_charts() {
    let Some(helm) = helm() else { return println!("skipped: no helm") };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    assert_eq!(meltemi(&["manifest", "charts", "-d", &format!("{at}/charts")], "").code, 0);
    let spec = "\
profile: demo
revision: canary
meshConfig:
  accessLogFile: /dev/stdout
components:
  cni:
    enabled: true
values:
  global:
    networkPolicy:
      enabled: true
  pilot:
    autoscaleMin: 2
    env:
      PILOT_DEBOUNCE_AFTER: 200ms
  sidecarInjectorWebhook:
    enableNamespacesByDefault: true
";
    let translated = meltemi(&["manifest", "translate", "-f", "-", "-o", &at], &document(spec));
    assert_eq!(translated.code, 0, "{}", translated.err);
    let mut made = Vec::new();
    for release in translated.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        let [_, _, _, name, chart, ..] = release[..] else { panic!("{release:?}") };
        let (chart, values) = (format!("{at}/{}", chart.trim_start_matches("./")), format!("{at}/{name}.yaml"));
        let arguments = ["template", name, &chart, "--namespace", "istio-system", "-f", &values];
        let output = Command::new(&helm).args(arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let parts = meltemi_config::split_documents(&text);
        made.extend(parts.into_iter().map(|(_, part)| meltemi_install::yaml::read(part).unwrap()));
    }
    let generated = meltemi(&["manifest", "generate", "-f", "-", "-o", "json"], &document(spec));
    let ours = by_name(serde_json::from_str(&generated.out).unwrap());
    let theirs = by_name(made);
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, object) in &ours {
        assert_eq!(object, &theirs[name], "{name}");
    }
}

#[test]
fn the_control_planes_arguments_are_those_of_this_program() {
    let generated = meltemi(&["manifest", "generate", "--component", "Pilot", "-o", "json"], "");
    let objects: Value = serde_json::from_str(&generated.out).unwrap();
    let deployment = objects.as_array().unwrap().iter().find(|object| object["kind"] == "Deployment").unwrap();
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let arguments: Vec<&str> = arguments.iter().map(|argument| argument.as_str().unwrap()).collect();
    // What comes before the wish for help is read before it.
    let run = meltemi(&[&arguments[..], &["--help"]].concat(), "");
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(meltemi(&["discovery", "--nonsense", "--help"], "").code, 2);
}
