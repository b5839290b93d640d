//! The commands that answer from configuration: `explain`, `diff`, and `validate` with cases, run as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a run said, and its exit code.
struct Run {
    code: i32,
    out: String,
    err: String,
}

fn meltemi(arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_meltemi")).args(arguments).output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn shop() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/shop").display().to_string()
}

/// The sample with a text of its routing replaced.
fn edited(from: &str, to: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(shop()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = if path.ends_with("routing.yaml") { text.replacen(from, to, 1) } else { text };
        std::fs::write(dir.path().join(path.file_name().unwrap()), text).unwrap();
    }
    dir
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn explain_tells_the_way_of_a_request_with_its_lines() {
    let run = meltemi(&["explain", "-f", &shop(), "--from", "frontend", "http://catalog:8080/"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("90% to catalog.shop.svc.cluster.local:8080 subset v1"), "{}", run.out);
    assert!(run.out.contains("from VirtualService shop/catalog spec.http[1]"), "{}", run.out);
    assert!(run.out.contains("routing.yaml:"), "{}", run.out);
    assert!(!run.out.contains('\u{1b}'), "colour is for terminals");
    let header = ["-H", "end-user: tester", "-o", "json"];
    let base = ["explain", "-f", &shop(), "--from", "frontend.shop", "http://catalog:8080/"];
    let run = meltemi(&[&base[..], &header[..]].concat());
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&json["error"], &json["route"]), (&Value::Null, &"testers".into()));
    assert_eq!(json["cluster"], "outbound|8080|v3|catalog.shop.svc.cluster.local");
    for key in ["listener", "filter_chain", "route_config", "virtual_host", "steps", "clusters", "timeout", "retries"] {
        assert!(json.get(key).is_some(), "{key}");
    }
}

#[test]
fn explain_answers_for_gateways_and_for_what_comes_in() {
    let run =
        meltemi(&["explain", "-f", &shop(), "--from", "istio-ingressgateway", "http://shop.example.com/catalog/1"]);
    assert!(run.out.contains("from Gateway shop/shop spec.servers[0]"), "{}{}", run.out, run.err);
    let inbound = ["explain", "-f", &shop(), "--from", "catalog-v1", "--inbound", "http://catalog:8080/", "-o", "json"];
    let json = |extra: &[&str]| -> Value {
        let run = meltemi(&[&inbound[..], extra].concat());
        serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err))
    };
    assert_eq!(json(&["--mtls"])["cluster"], "inbound|8080||");
    // The sample's PeerAuthentication is STRICT.
    assert_eq!(json(&[])["error"], "ErrNoFilterChain");
}

#[test]
fn explain_names_what_is_near_when_there_is_no_such_workload() {
    let run = meltemi(&["explain", "-f", &shop(), "--from", "fronted-v1", "http://catalog:8080/"]);
    assert_eq!(run.code, 65);
    assert!(run.err.contains("did you mean frontend-v1.shop?"), "{}", run.err);
    assert_eq!(meltemi(&["explain", "-f", &shop(), "http://catalog:8080/"]).code, 2);
    let run = meltemi(&["explain", "-f", &shop(), "--from", "frontend"]);
    assert_eq!(run.code, 65);
    assert!(run.err.contains("where to?"), "{}", run.err);
}

const CASE: &str = "
name: two calls
kind: traffic
proxy: {type: sidecar, labels: {app: a}}
mesh_config: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
config: ''
kube_config: ''
calls:
- name: a service that nobody knows
  call: {address: 1.2.3.4, port: 80, protocol: http, host_header: nobody}
  result: {error: ErrNoRoute, virtual_host_matched: never}
- name: a raw connection
  call: {address: 1.2.3.4, port: 80, protocol: tcp}
  result: {listener_matched: virtualOutbound, cluster_matched: BlackHoleCluster}
";

#[test]
fn cases_are_one_line_a_call_and_fail_by_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "case.yaml", CASE);
    let run = meltemi(&["explain", "--case", path.to_str().unwrap()]);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert_eq!(lines[2], "1 passed, 1 failed");
    let first: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&first["call"], &first["pass"]), (&"a service that nobody knows".into(), &false.into()));
    let second: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((&second["pass"], &second["result"]["cluster"]), (&true.into(), &"BlackHoleCluster".into()));
    let only = CASE.split("- name: a service").next().unwrap().to_owned()
        + "- name: a raw"
        + CASE.split("- name: a raw").nth(1).unwrap();
    file(&dir, "case.yaml", &only);
    file(&dir, "mesh.yaml", "proxyListenPort: 15001\n");
    let run = meltemi(&["explain", "--case", dir.path().to_str().unwrap()]);
    assert_eq!((run.code, run.out.lines().last()), (0, Some("1 passed, 0 failed")), "{}{}", run.out, run.err);
    let broken = file(&dir, "broken.yaml", "kind: traffic\ncalls: [{call: {address: nowhere}}]\n");
    assert_eq!(meltemi(&["explain", "--case", broken.to_str().unwrap()]).code, 65);
}

#[test]
fn validate_prints_one_verdict_a_document() {
    let dir = tempfile::tempdir().unwrap();
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: one}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  http:\n  - route:\n    - destination: {host: a}\n      weight: -1\n";
    let path = file(&dir, "some.yaml", text);
    let run = meltemi(&["validate", "-f", path.to_str().unwrap(), "-o", "json"]);
    assert_eq!(run.code, 65, "{}", run.out);
    let lines: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", run.out);
    assert_eq!((&lines[0]["valid"], &lines[0]["errors"]), (&true.into(), &serde_json::json!([])));
    assert_eq!((&lines[1]["valid"], &lines[1]["name"]), (&false.into(), &"a".into()));
    let error = &lines[1]["errors"][0];
    assert_eq!((&error["path"], &error["line"]), (&"spec.http[0].route[0].weight".into(), &13.into()), "{error}");
}

#[test]
fn validate_takes_what_istioctl_validate_takes() {
    let dir = tempfile::tempdir().unwrap();
    let exported = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  exportTo: [., shop]\n  http: [{route: [{destination: {host: a}}]}]\n";
    let other = "apiVersion: example.com/v1\nkind: Nothing\nmetadata: {name: b}\n";
    let first = file(&dir, "a.yaml", exported).display().to_string();
    let second = file(&dir, "b.yml", other).display().to_string();
    file(&dir, "notes.txt", "not a manifest: [");
    let both = format!("{first},{second}");
    let summary = |arguments: &[&str]| {
        let run = meltemi(arguments);
        (run.code, run.out.lines().last().unwrap_or_default().to_owned())
    };
    let fine = (0, "2 documents, 0 errors, 0 warnings, 1 notice".to_owned());
    assert_eq!(summary(&["validate", "-f", &both]), fine);
    assert_eq!(summary(&["v", "-x=false", "-f", &first, "-f", &second]), fine);
    assert_eq!(summary(&["validate", "-f", dir.path().to_str().unwrap()]), fine, "what is no manifest is passed over");
    let wrong = (65, "1 document, 1 error, 0 warnings".to_owned());
    assert_eq!(summary(&["validate", "-n", "shop", "-f", &first]), wrong, "the namespace is its own");
    let missing = meltemi(&["validate", "-f", "/nothing/here.yaml"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("/nothing/here.yaml"), "{}", missing.err);
    let input = std::fs::File::open(&first).unwrap();
    let read = Command::new(env!("CARGO_BIN_EXE_meltemi")).args(["validate", "-f", "-"]).stdin(input).output().unwrap();
    assert_eq!(read.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&read.stdout), "1 document, 0 errors, 0 warnings\n");
}

#[test]
fn a_file_that_is_not_there_ends_alike_whoever_looks_for_it() {
    let absent = "/nothing/here.yaml";
    for line in [
        &["validate", "-f", absent][..],
        &["explain", "-f", absent, "--from", "a", "http://b/"],
        &["kube-inject", "-f", absent],
    ] {
        let run = meltemi(line);
        assert_eq!(run.code, 1, "{line:?}: {}", run.err);
        assert!(run.err.starts_with("error: /nothing/here.yaml: No such file"), "{line:?}: {}", run.err);
    }
    // 1 is a difference.
    assert_eq!(meltemi(&["diff", absent, absent]).code, 65);
}

#[test]
fn validate_judges_by_definitions_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: boxes.example.com}\nspec:\n  group: example.com\n  names: {kind: Box, plural: boxes}\n  scope: Namespaced\n  versions:\n  - name: v1\n    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n          spec:\n            type: object\n            x-kubernetes-validations: [{rule: 'self.a < self.b', message: a is less than b}]\n            properties: {a: {type: integer}, b: {type: integer}}\n";
    let definitions = file(&dir, "crds.yaml", definition).display().to_string();
    let document =
        file(&dir, "box.yaml", "apiVersion: example.com/v1\nkind: Box\nmetadata: {name: a}\nspec:\n  a: 2\n  b: 1\n");
    let document = document.display().to_string();
    assert_eq!(meltemi(&["validate", "-f", &document]).code, 0);
    let run = meltemi(&["validate", "-f", &document, "--definitions", &definitions]);
    assert_eq!(run.code, 65, "{}{}", run.out, run.err);
    assert!(run.out.contains("box.yaml:4: error: spec: Invalid value: a is less than b"), "{}", run.out);
    let none = meltemi(&["validate", "-f", &document, "--definitions", &document]);
    assert_eq!(none.code, 65);
    assert!(none.err.contains("holds no CustomResourceDefinition"), "{}", none.err);
    let wrong = file(&dir, "wrong.yaml", &definition.replace("self.a <", "self.a <<")).display().to_string();
    let wrong = meltemi(&["validate", "-f", &document, "--definitions", &wrong]);
    assert_eq!(wrong.code, 65);
    assert!(wrong.err.contains("x-kubernetes-validations[0]: rule: expected an operand"), "{}", wrong.err);
}

#[test]
fn validate_judges_cases() {
    let dir = tempfile::tempdir().unwrap();
    let case = |valid: bool| {
        format!(
            "name: no hosts\nkind: VirtualService\nfunction: f\nvalid: {valid}\ndoc:\n  apiVersion: networking.istio.io/v1\n  kind: VirtualService\n  metadata: {{name: a}}\n  spec: {{http: [{{route: [{{destination: {{host: a}}}}]}}], gateways: [g]}}\n"
        )
    };
    let path = file(&dir, "case.yaml", &case(false));
    let run = meltemi(&["validate", "--case", path.to_str().unwrap()]);
    assert_eq!((run.code, run.out.lines().last()), (0, Some("1 passed, 0 failed")), "{}", run.out);
    file(&dir, "case.yaml", &case(true));
    let run = meltemi(&["validate", "--case", dir.path().to_str().unwrap()]);
    assert_eq!((run.code, run.out.lines().last()), (1, Some("0 passed, 1 failed")), "{}", run.out);
    assert!(run.out.contains("it should be valid"), "{}", run.out);
}

#[test]
fn diff_tells_a_weight_and_exits_as_diff_does() {
    let same = meltemi(&["diff", &shop(), &shop()]);
    assert_eq!((same.code, same.out.as_str()), (0, "no proxy is sent anything else\n"), "{}", same.err);
    let new = edited("weight: 90", "weight: -1");
    let run = meltemi(&["diff", &shop(), new.path().to_str().unwrap()]);
    assert_eq!(run.code, 65, "what is wrong would not come into force: {}{}", run.out, run.err);
    let new = edited(
        "weight: 90\n    - destination:\n        host: catalog\n        subset: v2\n      weight: 10",
        "weight: 50\n    - destination:\n        host: catalog\n        subset: v2\n      weight: 50",
    );
    let run = meltemi(&["diff", &shop(), new.path().to_str().unwrap()]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.out.contains("weight of v1 90 → 50, weight of v2 10 → 50"), "{}", run.out);
    let run = meltemi(&["diff", "-o", "json", &shop(), new.path().to_str().unwrap()]);
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json["groups"][0]["changes"][0]["kind"], "route");
    assert_eq!(meltemi(&["diff", &shop(), "/nowhere"]).code, 65);
    assert_eq!(meltemi(&["diff", &shop()]).code, 2);
}

/// A control plane over the sample; ended when dropped.
struct Discovery {
    child: Child,
    http: SocketAddr,
}

impl Discovery {
    fn start() -> Self {
        Self::over(&shop())
    }

    fn over(folder: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let http = port.to_string();
        let flags = [
            "--httpsAddr",
            "",
            "--grpcAddr",
            "127.0.0.1:0",
            "--secureGRPCAddr",
            "",
            "--monitoringAddr",
            "",
            "--httpAddr",
            &http,
        ];
        let mut child = Command::new(env!("CARGO_BIN_EXE_meltemi"))
            .args(["discovery", "--configDir", folder])
            .args(flags)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || errors.lines().for_each(drop));
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(port).is_err() {
            assert!(Instant::now() < end, "discovery does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, http: port }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_running_control_plane_answers_as_its_files_do() {
    let discovery = Discovery::start();
    let url = format!("http://{}", discovery.http);
    let run = meltemi(&["explain", "--discovery", &url, "--from", "frontend", "http://catalog:8080/", "-o", "json"]);
    let json: Value = serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err));
    assert_eq!(json["route"], "everyone", "{}", run.out);
    let place = &json["steps"][4]["decided_by"][0];
    assert_eq!((&place["kind"], &place["path"]), (&"VirtualService".into(), &"spec.http[1]".into()));
    assert!(place["file"].as_str().unwrap().ends_with("routing.yaml"), "{place}");
    let routing = std::fs::read_to_string(Path::new(&shop()).join("routing.yaml")).unwrap();
    let line = routing.lines().position(|line| line.contains("name: everyone")).unwrap() + 1;
    assert_eq!(place["line"], line, "{place}");
    let dir = tempfile::tempdir().unwrap();
    let routing = std::fs::read_to_string(Path::new(&shop()).join("routing.yaml")).unwrap();
    let path = file(&dir, "routing.yaml", &routing);
    let run = meltemi(&["diff", "-f", path.to_str().unwrap(), "--discovery", &url]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let path = file(&dir, "routing.yaml", &routing.replacen("timeout: 5s", "timeout: 1s", 1));
    let run = meltemi(&["diff", "-f", path.to_str().unwrap(), "--discovery", &url]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.out.contains("timeout 5s → 1s"), "{}", run.out);
    let gone = meltemi(&["explain", "--discovery", "http://127.0.0.1:1", "--from", "a", "http://b/"]);
    assert_eq!(gone.code, 65);
}

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]
    to: [{operation: {methods: [GET]}}]
  - from: [{source: {requestPrincipals: ['https://issuer.example/me']}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: 'https://issuer.example', jwks: '{\"keys\": []}'}]}
";

#[test]
fn explain_says_which_policy_decides_from_files_and_of_a_running_mesh() {
    let folder = edited("", "");
    std::fs::write(folder.path().join("policies.yaml"), POLICIES).unwrap();
    let folder = folder.path().to_str().unwrap();
    let tokens = tempfile::tempdir().unwrap();
    let discovery = Discovery::over(folder);
    let url = format!("http://{}", discovery.http);
    for mesh in [["-f", folder], ["--discovery", &url]] {
        let ask = |more: &[&str]| {
            let arriving = ["--from", "catalog-v1", "--inbound", "--mtls", "http://catalog:8080/", "-o", "json"];
            let run = meltemi(&[&["explain"], &mesh[..], &arriving, more].concat());
            let json: Value =
                serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err));
            assert_eq!(run.code, 0);
            json
        };
        let allowed = ask(&["--principal", "shop/frontend"]);
        assert_eq!(allowed["served"], true, "{mesh:?}: {allowed:#}");
        let decided = allowed["policies"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&decided["action"], &decided["answer"]), (&"ALLOW".into(), &"passed".into()), "{decided}");
        assert_eq!(
            (&decided["policy"]["name"], &decided["policy"]["rule"]),
            (&"readers".into(), &"spec.rules[0]".into())
        );
        let denied = ask(&["--principal", "shop/frontend", "-X", "PUT"]);
        assert!(denied["verdict"].as_str().unwrap().starts_with("answered 403: ALLOW: no rule matches"), "{denied:#}");
        let token = ["--claim", "iss=https://issuer.example", "--claim", "sub=me"];
        assert_eq!(ask(&[&token[..], &["-X", "PUT"]].concat())["served"], true);
        // {"iss": "https://issuer.example", "sub": "me"}, without a signature.
        let file = file(&tokens, "token", "e30.eyJpc3MiOiAiaHR0cHM6Ly9pc3N1ZXIuZXhhbXBsZSIsICJzdWIiOiAibWUifQ.\n");
        let token = ["--jwt", file.to_str().unwrap(), "-X", "PUT"];
        let served = ask(&token);
        assert_eq!(served["served"], true, "{served:#}");
        assert!(served["notes"].to_string().contains("taken as given"), "{served:#}");
        assert_eq!(ask(&[&token[..], &["--claim", "sub=you"]].concat())["served"], false);
        let stranger = ask(&[
            "--claim",
            "iss=https://elsewhere.example",
            "--principal",
            "spiffe://cluster.local/ns/shop/sa/frontend",
        ]);
        assert!(
            stranger["verdict"].as_str().unwrap().starts_with("answered 401: tokens: none of issuer"),
            "{stranger:#}"
        );
    }
    for (wrong, code, expected) in [
        (&["--principal", "frontend", "--mtls"][..], 65, "NAMESPACE/ACCOUNT"),
        (&["--principal", "shop/frontend"], 2, "--mtls"),
        (&["--claim", "sub=me"], 65, "--claim iss=ISSUER"),
        (&["--claim", "sub"], 2, "NAME=VALUE"),
        (&["--source-ip", "10.0.0"], 2, "--source-ip"),
        (&["--jwt", "/nowhere"], 65, "--jwt /nowhere"),
    ] {
        let run = meltemi(
            &[&["explain", "-f", folder, "--from", "catalog-v1", "--inbound", "http://catalog:8080/"], wrong].concat(),
        );
        assert!(run.code == code && run.err.contains(expected), "{wrong:?}: {} {}", run.code, run.err);
    }
}

#[test]
fn a_case_of_policies_passes_or_tells_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: foo}\nspec: {action: AUDIT}\n";
    file(&dir, "input.yaml", policy);
    let case = |text: &str| {
        file(&dir, "case.yaml", text);
        meltemi(&["x", "authz-case", &dir.path().display().to_string()])
    };
    let run = case("kind: AuthorizationPolicy\nexpect_none: true\n");
    assert_eq!((run.code, run.out.starts_with("pass ")), (0, true), "{}{}", run.out, run.err);
    let run = case("filter_kind: http\naction_set: local\nexpected: []\n");
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.out.starts_with("fail ") && run.out.contains("expected 0 filters, got 1"), "{}", run.out);
    let expected = "name: envoy.filters.network.rbac
typedConfig:
  '@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
  rules: {action: DENY, policies: {'ns[foo]-policy[p]-rule[0]': {permissions: [{destinationPort: 81}], principals: [{any: true}]}}}
  shadowRulesStatPrefix: istio_dry_run_allow_
  statPrefix: tcp.
";
    file(&dir, "expected.yaml", expected);
    file(&dir, "input.yaml", &policy.replace("AUDIT", "DENY, rules: [{to: [{operation: {ports: ['80']}}]}]"));
    file(&dir, "case.yaml", "filter_kind: tcp\naction_set: local\nexpected: [expected.yaml]\n");
    let folder = dir.path().display().to_string();
    let run = meltemi(&["x", "authz-case", "-o", "json", &folder]);
    let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &told["pass"], &told["case"]), (1, &false.into(), &folder.as_str().into()), "{}", run.err);
    let disagreement = &told["trial"]["disagreement"];
    assert_eq!(disagreement["request"]["destination"], "203.0.113.80:81", "{told}");
    assert_eq!(disagreement["expected"][0]["policy"], "ns[foo]-policy[p]-rule[0]");
    assert_eq!(disagreement["found"][0]["rules"], "allowed");
    let run = meltemi(&["x", "authz-case", "--seed", "9", &folder]);
    assert!(run.out.contains("the first request that is decided otherwise:\n    request: {"), "{}", run.out);
    let run = case("filter_kind: udp\n");
    assert_eq!((run.code, run.err.contains("\"udp\" is not one of http, tcp")), (1, true), "{}", run.err);
}
