use std::time::Duration;

use super::*;
use crate::networking::{ClientTlsMode, Resolution, ServiceLocation, VirtualService};
use crate::resilience::AnomalyAction;
use crate::security::{MutualTlsMode, PeerAuthentication};

mod value;

fn shown(text: &str) -> Vec<String> {
    parse_documents("f.yaml", text).iter().flat_map(|d| d.problems.iter().map(ToString::to_string)).collect()
}

fn virtual_service(spec: &str) -> String {
    let indented = spec.lines().map(|l| format!("  {l}\n")).collect::<String>();
    format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: r\nspec:\n{indented}")
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(shown(text), expected, "of:\n{text}");
}

#[test]
fn each_malformed_document_gives_file_line_path_and_suggestion() {
    let vs = "VirtualService default/r";
    check(
        &virtual_service("hosts: [a]\nhttp:\n- rout:\n  - destination: {host: b}"),
        &[&format!("f.yaml:8: error: {vs}: spec.http[0].rout: unknown field; did you mean `route`?")],
    );
    check(
        &virtual_service("hosts: [a]\nhttp:\n- route:\n  - destination: {host: b}\n    weight: many"),
        &[&format!(
            "f.yaml:10: error: {vs}: spec.http[0].route[0].weight: expected a whole number, found the string \"many\""
        )],
    );
    check(
        &virtual_service("hosts: a"),
        &[&format!("f.yaml:6: error: {vs}: spec.hosts: expected a list, found the string \"a\"")],
    );
    check(
        &virtual_service("hosts: [a]\nhttp:\n- timeout: 10"),
        &[&format!(
            "f.yaml:8: error: {vs}: spec.http[0].timeout: expected a string, found the number 10; put it in quotes"
        )],
    );
    check(
        &virtual_service("hosts: [a]\nhttp:\n- timeout: \"10\""),
        &[&format!("f.yaml:8: error: {vs}: spec.http[0].timeout: \"10\": a unit is missing; write 10s, not 10")],
    );
    check(
        &virtual_service("hosts: [a]\nhttp:\n- corsPolicy: {unmatchedPreflights: FORWRD}"),
        &[&format!(
            "f.yaml:8: error: {vs}: spec.http[0].corsPolicy.unmatchedPreflights: the string \"FORWRD\" is not one of \
             UNSPECIFIED, FORWARD, IGNORE; did you mean `FORWARD`?"
        )],
    );
    check(
        &virtual_service("hosts: [a]\nhttp:\n- match:\n  - headers:\n      x.y/z: {exakt: b}"),
        &[&format!(
            "f.yaml:10: error: {vs}: spec.http[0].match[0].headers[\"x.y/z\"].exakt: unknown field; did you mean `exact`?"
        )],
    );
    check(
        &virtual_service("hosts: [a]\nhttp:\n- websocketUpgrade: true"),
        &[&format!(
            "f.yaml:8: warning: {vs}: spec.http[0].websocketUpgrade: no longer needed: WebSocket upgrades are always allowed"
        )],
    );
}

#[test]
fn each_malformed_envelope_is_explained() {
    check("just text", &["f.yaml:1: error: expected a Kubernetes document, found the string \"just text\""]);
    check("kind: Pod\nmetadata: {name: a}", &["f.yaml:1: error: apiVersion: required"]);
    check("apiVersion: v1\nKind: Pod", &["f.yaml:1: error: kind: required; did you mean `kind`?"]);
    check(
        "apiVersion: networking.istio.io/v1\nkind: VirtualServce\nmetadata: {name: a}",
        &[
            "f.yaml:2: error: kind: networking.istio.io/v1 has no kind \"VirtualServce\"; did you mean `VirtualService`?",
        ],
    );
    check(
        "apiVersion: networking.istio.io/v1\nkind: PeerAuthentication",
        &["f.yaml:2: error: kind: PeerAuthentication is in security.istio.io/v1, not networking.istio.io/v1"],
    );
    check(
        "apiVersion: networking.istio.io/v2\nkind: Gateway",
        &["f.yaml:1: error: apiVersion: Gateway has no version \"v2\"; use networking.istio.io/v1"],
    );
    check("apiVersion: v1\nkind: Pod\nmetadata: {}", &["f.yaml:3: error: metadata.name: required"]);
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, lables: {}}",
        &["f.yaml:3: error: Pod default/a: metadata.lables: unknown field; did you mean `labels`?"],
    );
    check(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler",
        &["f.yaml:2: notice: kind: autoscaling/v2 HorizontalPodAutoscaler means nothing to a mesh; skipped"],
    );
    check(
        "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport",
        &["f.yaml:2: warning: kind: ServiceExport of multicluster.x-k8s.io/v1alpha1 is not supported yet; skipped"],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - prt: 80",
        &["f.yaml:6: error: Service default/a: spec.ports[0].prt: unknown field; did you mean `port`?"],
    );
}

#[test]
fn a_syntax_error_or_duplicate_key_stays_in_its_document() {
    let good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let text = format!("{good}---\na: [\n---\nkind: a\nkind: b\n--- # comment\n{good}");
    let documents = parse_documents("f.yaml", &text);
    let names: Vec<_> = documents.iter().map(|d| d.key.as_ref().map(|k| &*k.name)).collect();
    assert_eq!(names, [Some("a"), None, None, Some("a")]);
    let shown = shown(&text);
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].starts_with("f.yaml:5: error: ") || shown[0].starts_with("f.yaml:6: error: "), "{shown:?}");
    assert!(shown[1].starts_with("f.yaml:8: error: ") && shown[1].contains("kind"), "{shown:?}");
}

#[test]
fn errors_of_yaml_itself_are_said_in_our_words_with_line_and_column() {
    check("kind: a\nhosts: [x]\nhosts: [y]\n", &["f.yaml:3: error: column 1: key `hosts` stands twice"]);
    check("spec: {a: 1, a: 2}", &["f.yaml:1: error: column 14: key `a` stands twice"]);
    check("---\nspec:\n\thosts: [x]\n", &["f.yaml:3: error: column 1: a tab; YAML is indented with spaces"]);
    check("spec:\n  hosts: [x]\n  \thttp: []\n", &["f.yaml:3: error: column 3: a tab; YAML is indented with spaces"]);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let said = shown(&bomb);
    assert!(said.len() == 1 && said[0].ends_with(": too many aliases") && said[0].contains("column "), "{said:?}");
}

#[test]
fn every_wrong_value_is_reported_not_only_the_first() {
    let vs = "VirtualService default/r";
    check(
        &virtual_service(
            "hosts: a\nhttp:\n- timeout: 10\n  retries: {attempts: many, perTryTimeout: 1}\n  rout: []\n- 5\n- match: [{uri: 3}]",
        ),
        &[
            &format!("f.yaml:10: error: {vs}: spec.http[0].rout: unknown field; did you mean `route`?"),
            &format!("f.yaml:6: error: {vs}: spec.hosts: expected a list, found the string \"a\""),
            &format!(
                "f.yaml:8: error: {vs}: spec.http[0].timeout: expected a string, found the number 10; put it in quotes"
            ),
            &format!(
                "f.yaml:9: error: {vs}: spec.http[0].retries.attempts: expected a whole number, found the string \"many\""
            ),
            &format!(
                "f.yaml:9: error: {vs}: spec.http[0].retries.perTryTimeout: expected a string, found the number 1; put it in quotes"
            ),
            &format!("f.yaml:11: error: {vs}: spec.http[1]: expected an object, found the number 5"),
            &format!("f.yaml:12: error: {vs}: spec.http[2].match[0].uri: expected an object, found the number 3"),
        ],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: 3, labels: {a: 1}}\nspec: {nodeName: 4}\n",
        &[
            "f.yaml:3: error: metadata.name: expected a string, found the number 3; put it in quotes",
            "f.yaml:3: error: metadata.labels.a: expected a string, found the number 1; put it in quotes",
            "f.yaml:4: error: spec.nodeName: expected a string, found the number 4; put it in quotes",
        ],
    );
    // Bounded, whatever the document.
    let many = format!("hosts: [{}]", vec!["1"; 1000].join(", "));
    assert_eq!(shown(&virtual_service(&many)).len(), 50);
}

#[test]
fn the_beginning_of_a_value_is_recognised() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: a\n  trafficPolicy: {loadBalancer: {simple: LEAST_REQ}}\n";
    let said = shown(rule);
    assert!(said.len() == 1 && said[0].ends_with("; did you mean `LEAST_REQUEST`?"), "{said:?}");
}

/// The ConfigMap of an installation.
fn mesh_map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio\n  namespace: istio-system\ndata:\n{data}")
}

#[test]
fn the_mesh_configuration_in_its_config_map_is_checked_at_its_own_lines() {
    let at = "ConfigMap istio-system/istio: data";
    check(&mesh_map("  meshNetworks: 'networks: {}'\n  mesh: |-\n    accessLogFile: /dev/stdout\n"), &[]);
    check(
        &mesh_map("  mesh: |-\n    accessLogFile: /dev/stdout\n    outboundTrafficPolicy:\n      mod: ALLOW_ANY\n"),
        &[&format!("f.yaml:10: error: {at}.mesh.outboundTrafficPolicy.mod: unknown field; did you mean `mode`?")],
    );
    check(
        &mesh_map("  mesh: 'trustDomain: \"a b\"'\n"),
        &[&format!("f.yaml:7: error: {at}.mesh.trustDomain: {}", trust_domain_error("a b"))],
    );
    check(&mesh_map("  mesh: |\n    a: [\n").replace("name: istio", "name: other"), &[]);
    check(
        &mesh_map("  meshNetworks: |\n    networks:\n      n: {endpoints: [{fromCidr: 10.0.0.0/8}]}\n"),
        &[&format!(
            "f.yaml:8: warning: {at}.meshNetworks.networks: has no effect: more than one network is not supported yet"
        )],
    );
    let documents = parse_documents("f.yaml", &mesh_map("  mesh: |\n    trustDomain: td.example\n"));
    let object = documents[0].object.as_ref().expect("readable");
    assert_eq!(object.mesh_config(), Some("trustDomain: td.example\n"));
}

fn trust_domain_error(text: &str) -> String {
    crate::names::trust_domain(text).expect_err("none")
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_at_the_line_of_the_first_byte() {
    assert_eq!(decode("f", "a: é\n".into()).expect("text"), "a: é\n");
    let problem = decode("f.yaml", b"a: b\nc: \xc3\x28\n".to_vec()).expect_err("not text");
    assert_eq!(problem.to_string(), "f.yaml:2: error: not UTF-8: a byte 0xc3");
}

#[test]
fn every_unknown_field_is_reported_not_only_the_first() {
    let text = virtual_service("host: [a]\nhttp:\n- rout: []\n  retry: {}");
    let paths: Vec<_> = parse_documents("f", &text)[0].problems.iter().map(|p| p.path.clone()).collect();
    assert_eq!(paths, ["spec.host", "spec.http[0].rout", "spec.http[0].retry"]);
}

#[test]
fn protojson_leniences_are_accepted() {
    let text = virtual_service(
        "hosts: [a]\nexport_to: [\".\"]\nhttp:\n- timeout: 1m30s\n  mirror_percent: \"7\"\n  redirect: {derivePort: 1}\n  fault: null\n  match:\n  - port: 80.0\n    ignore_uri_case: true",
    );
    let documents = parse_documents("f", &text);
    assert_eq!(shown(&text), [""; 0]);
    let spec = documents[0].object.as_ref().and_then(|o| o.spec_as::<VirtualService>()).expect("a VirtualService");
    let http = &spec.http[0];
    assert_eq!(spec.export_to, [Str::from(".")]);
    assert_eq!(http.timeout, Some(std::time::Duration::from_secs(90)));
    assert_eq!(http.mirror_percent, Some(7));
    assert_eq!(
        http.redirect.as_ref().and_then(|r| r.derive_port),
        Some(crate::networking::RedirectPort::FromRequestPort)
    );
    assert_eq!((http.matches[0].port, http.matches[0].ignore_uri_case), (80, true));
}

#[test]
fn lists_and_json_are_read() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
	{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}},
	{"apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication", "metadata": {"name": "b"},
	 "spec": {"selector": {"matchLabels": {"app": "x"}}, "portLevelMtls": {"8080": {"mode": "STRICT"}}}}]}"#;
    assert_eq!(shown(text), [""; 0]);
    let documents = parse_documents("f.json", text);
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1].source.line, 3);
    let spec = documents[1].object.as_ref().and_then(|o| o.spec_as::<PeerAuthentication>()).expect("the second");
    assert_eq!(spec.port_level_mtls[&8080].mode, MutualTlsMode::Strict);
}

#[test]
fn a_field_path_leads_to_its_line() {
    let text = virtual_service(
        "hosts:\n- a\nhttp:\n- match:\n  - uri:\n      exact: /x\n    sourceLabels:\n      a.b/c: d\n  route: []",
    );
    let document = &parse_documents("f", &text)[0];
    for (path, line) in [
        ("spec", 5),
        ("spec.hosts[0]", 7),
        ("spec.http[0].match[0].uri.exact", 11),
        ("spec.http[0].match[0].sourceLabels[\"a.b/c\"]", 13),
        ("spec.http[0].route[3].weight", 14),
        ("spec.nowhere.at[0].all", 5),
        ("", 1),
    ] {
        assert_eq!(document.line_of(path), line, "{path}");
    }
}

#[test]
fn a_partial_mesh_config_keeps_istios_defaults() {
    let settings = parse_mesh_config(
        "mesh.yaml",
        "accessLogFile: /dev/stdout\ndefaultConfig:\n  concurrency: 2\n  tracing: {sampling: 5}\nextensionProviders:\n- name: z\n  zipkin: {service: z.default.svc.cluster.local, port: 9411}\nmixerAddress: x\n",
    )
    .expect("valid");
    let mesh = settings.value;
    assert_eq!(&*mesh.access_log_file, "/dev/stdout");
    assert_eq!(mesh.default_config.concurrency, Some(2));
    assert_eq!(mesh.default_config.status_port, 15020);
    assert!(mesh.enable_auto_mtls);
    let names: Vec<_> = mesh.extension_providers.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["z", "prometheus", "stackdriver", "envoy"]);
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    let errors = parse_mesh_config("mesh.yaml", "a: 1\noutboundTrafficPolicy: {mod: ALLOW_ANY}").expect_err("invalid");
    let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[1], "mesh.yaml:2: error: outboundTrafficPolicy.mod: unknown field; did you mean `mode`?");
}

#[test]
fn the_default_mesh_config_is_istios() {
    let Ok(text) = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/peer/simulation/default_mesh_config.yaml"
    )) else {
        eprintln!("skipped: no ../shared");
        return;
    };
    let read = parse_mesh_config("default", &text).expect("valid");
    assert_eq!(read.value, MeshConfig::default());
}

#[test]
fn enum_defaults_are_protobufs_zero_values() {
    assert_eq!(ClientTlsMode::default(), ClientTlsMode::Disable);
    assert_eq!(Resolution::default(), Resolution::None);
    assert_eq!(ServiceLocation::default(), ServiceLocation::MeshExternal);
}

#[test]
fn equal_content_has_equal_hash_wherever_it_was_written() {
    let one = parse_documents("a", &virtual_service("hosts: [a]"));
    let two = parse_documents("b", &format!("# moved\n\n{}", virtual_service("hosts: ['a']")));
    let other = parse_documents("a", &virtual_service("hosts: [b]"));
    assert_eq!(one[0].object, two[0].object);
    assert_ne!(one[0].object, other[0].object);
}

/// Every sample and manifest of the shared folder is readable, apart from those that are not Kubernetes documents.
#[test]
fn istios_samples_are_read_without_error() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/peer/samples");
    let mut files = Vec::new();
    collect(std::path::Path::new(root), &mut files);
    if files.is_empty() {
        eprintln!("skipped: no ../shared");
        return;
    }
    let (mut count, mut wrong) = (0, Vec::new());
    for file in &files {
        let text = std::fs::read_to_string(file).expect("utf-8");
        let name = file.strip_prefix(root).expect("below").display().to_string();
        let documents = parse_documents(&name, &text);
        count += documents.iter().filter(|d| d.object.is_some()).count();
        let problems = documents.iter().flat_map(|d| d.check());
        wrong.extend(problems.filter(|p| p.severity == Severity::Error).map(|p| p.to_string()));
    }
    println!("{} files, {count} objects, {} errors", files.len(), wrong.len());
    let unexpected: Vec<_> = wrong.iter().filter(|w| !KNOWN.iter().any(|k| w.starts_with(k))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert!(count >= 230, "{count}");
}

/// Files of the samples that are not manifests.
const KNOWN: &[&str] = &["ambient-argo/tag-chart/", "security/spire-trust-domain-federation/spire-"];

fn collect(dir: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
    }
    files.sort();
}

mod never_panics {
    use proptest::prelude::*;

    use super::*;

    /// Pieces from which nearly valid documents are put together.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n".to_owned()),
            Just("apiVersion: v1\nkind: List\nitems:\n- ".to_owned()),
            Just("---\n".to_owned()),
            Just("  hosts: [a, &x b, *x]\n".to_owned()),
            Just("  http:\n  - match:\n    - uri: {prefix: /}\n".to_owned()),
            Just("    timeout: ".to_owned()),
            Just("  <<: {exportTo: 1}\n".to_owned()),
            Just("{\"a\": [1, 2.5e9, null, true, \"\\u0000\"]}".to_owned()),
            Just("? [a, b]\n: c\n".to_owned()),
            Just("!!binary aGk=\n".to_owned()),
            Just("key: |\n  ---\n\ttab\n".to_owned()),
            "[ -~\n\t]{0,24}",
            "\\PC{0,12}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn on_any_text(pieces in proptest::collection::vec(piece(), 0..12)) {
            let text = pieces.concat();
            let lines = u32::try_from(text.lines().count()).expect("short") + 1;
            for problem in parse_documents("f", &text).iter().flat_map(Document::check) {
                prop_assert!((1..=lines).contains(&problem.source.line), "{problem} of {lines} lines");
            }
            drop(parse_mesh_config("m", &text));
        }

        #[test]
        fn on_a_damaged_sample(at in 0usize..900, length in 0usize..20, with in "[ -~\n]{0,6}") {
            let mut text = include_str!("tests/sample.yaml").to_owned();
            let start = at.min(text.len());
            let end = (start + length).min(text.len());
            text.replace_range(start..end, &with);
            for document in parse_documents("f", &text) {
                prop_assert!(document.object.is_some() || !document.problems.is_empty());
                drop(document.check());
            }
        }
    }
}

/// A value can be written and read again: what is shown to an operator is what is in force.
#[test]
fn what_is_written_is_what_was_read() {
    for document in parse_documents("f", include_str!("tests/sample.yaml")) {
        let object = document.object.expect("readable");
        let kind = object.kind();
        let written = serde_json::json!({
            "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": {"name": "x"},
            "spec": serde_json::to_value(&object.spec).expect("json"),
        });
        let again = parse_documents("g", &written.to_string());
        assert_eq!(again[0].object.as_ref().map(|o| &o.spec), Some(&object.spec), "{:?}", again[0].problems);
    }
    let mesh = MeshConfig::default();
    let text = serde_json::to_string(&mesh).expect("json");
    assert_eq!(parse_mesh_config("m", &text).expect("valid").value, mesh);
}

fn problems(text: &str) -> Vec<String> {
    parse_documents("f", text).iter().flat_map(Document::check).map(|problem| problem.to_string()).collect()
}

const FUTURE_FEATURES: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: Telemetry
metadata: {name: future-features, namespace: shop}
spec:
  automaticRetries: {enabled: true, maxAttempts: 3}
  adaptiveLoadBalancing: {enabled: true, windowSize: 5m}
  anomalyDetection: {enabled: true, sensitivity: medium}
";

#[test]
fn future_features_are_a_policy_in_another_spelling_and_say_so() {
    let shown = problems(FUTURE_FEATURES);
    let [warning] = shown.as_slice() else { panic!("{shown:?}") };
    assert!(warning.contains("f:5: warning: Telemetry shop/future-features: spec: "), "{warning}");
    assert!(warning.contains("ResiliencePolicy of meltemi.io/v1alpha1"), "{warning}");
    let documents = parse_documents("f", FUTURE_FEATURES);
    let Some(Spec::FutureFeatures(features)) = documents[0].object.as_ref().map(|object| &object.spec) else {
        panic!("{documents:?}")
    };
    let policy = features.policy();
    assert_eq!(policy.automatic_retries.and_then(|retries| retries.max_attempts), Some(3));
    assert_eq!(policy.adaptive_load_balancing.and_then(|own| own.window_size), Some(Duration::from_secs(300)));
    assert_eq!(policy.anomaly_detection.map(|own| own.action), Some(AnomalyAction::Eject));
}

#[test]
fn a_resilience_policy_is_read_strictly() {
    let policy = |spec: &str| {
        let text =
            format!("apiVersion: meltemi.io/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: a}}\nspec: {spec}");
        problems(&text).join(" | ")
    };
    let good = "{hosts: ['*.shop.svc.cluster.local', cart], selector: {matchLabels: {app: web}}, \
                automaticRetries: {maxAttempts: 2, budget: {percent: 12.5, minConcurrency: 0}}}";
    assert_eq!(policy(good), "");
    let wrong = [
        ("{}", "spec: none of automaticRetries"),
        ("{automaticRetries: {maxAttempts: 0}}", "spec.automaticRetries.maxAttempts: must be between 1 and 10"),
        ("{automaticRetries: {maxAttempts: 11}}", "spec.automaticRetries.maxAttempts: must be between 1 and 10"),
        ("{automaticRetries: {budget: {percent: 101}}}", "spec.automaticRetries.budget.percent"),
        ("{automaticRetry: {}}", "did you mean `automaticRetries`?"),
        ("{adaptiveLoadBalancing: {windowSize: 100ms}}", "must be between 1s and 1h"),
        ("{adaptiveLoadBalancing: {windowSize: 2h}}", "must be between 1s and 1h"),
        ("{anomalyDetection: {sensitivity: extreme}}", "spec.anomalyDetection.sensitivity"),
        ("{anomalyDetection: {}, hosts: [a_b.c]}", "spec.hosts[0]"),
    ];
    for (spec, expected) in wrong {
        assert!(policy(spec).contains(expected), "{spec}: {}", policy(spec));
    }
    let misspelt = "apiVersion: meltemi.io/v1alpha1\nkind: ResiliencyPolicy\nmetadata: {name: a}\n";
    let shown = problems(misspelt).join("");
    assert!(shown.contains("error") && shown.contains("ResiliencePolicy"), "{shown}");
}

#[test]
fn a_rate_limit_policy_is_read_strictly() {
    let policy = |spec: &str| {
        let text =
            format!("apiVersion: meltemi.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: a}}\nspec: {spec}");
        problems(&text).join(" | ")
    };
    let rule = |rule: &str| policy(&format!("{{rules: [{{limit: {{requests: 5, unit: MINUTE}}, {rule}}}]}}"));
    let limit = |limit: &str| policy(&format!("{{rules: [{{limit: {limit}}}]}}"));
    assert_eq!(
        rule(
            "name: users, match: {paths: [/api/*], methods: [GET], hosts: ['*.example.com'], headers: {x: {prefix: v}}}, \
             by: [{header: x-user}, {claim: '[realm][group]'}, {path: true}, {sourcePrincipal: true}, {remoteAddress: true}], \
             scope: GLOBAL, provider: {address: 'ratelimit.infra:8081', failOpen: false, timeout: 50ms}, \
             response: {status: 503, headers: {retry-after: '1'}}, dryRun: true"
        ),
        ""
    );
    assert_eq!(limit("{requests: 5, interval: 100ms, burst: 9}"), "");
    for (shown, expected) in [
        (policy("{rules: []}"), "spec.rules: without rules nothing is limited"),
        (policy("{rules: [{}]}"), "spec.rules[0].limit: required"),
        (policy("{rule: []}"), "did you mean `rules`?"),
        (limit("{requests: 5}"), "spec.rules[0].limit: needs one of unit and interval"),
        (limit("{requests: 5, unit: MINUTE, interval: 1s}"), "needs one of unit and interval"),
        (limit("{requests: 5, interval: 49ms}"), "spec.rules[0].limit.interval: must be at least 50ms"),
        (limit("{requests: 0, unit: MINUTE}"), "spec.rules[0].limit.requests: must be at least 1"),
        (limit("{requests: 5, unit: FORTNIGHT}"), "spec.rules[0].limit.unit"),
        (limit("{requests: 5, unit: DAY, burst: 4}"), "spec.rules[0].limit.burst: must be no less"),
        (rule("by: [{header: a, path: true}]"), "spec.rules[0].by[0]: needs exactly one source"),
        (rule("by: [{}]"), "spec.rules[0].by[0]: needs exactly one source"),
        (rule("by: [{path: true}, {path: true}]"), "spec.rules[0].by[1]: is there already"),
        (rule("by: [{claim: '[a'}]"), "spec.rules[0].by[0].claim: is no claim"),
        (rule("by: [{sourceNamespace: true}]"), "sourceNamespace"),
        (rule("scope: GLOBAL"), "spec.rules[0].provider: scope GLOBAL needs a provider"),
        (rule("provider: {address: 'a:1'}"), "spec.rules[0].provider: only of scope GLOBAL"),
        (rule("scope: GLOBAL, provider: {address: a}"), "spec.rules[0].provider.address"),
        (rule("match: {}"), "spec.rules[0].match: is empty"),
        (rule("match: {paths: [/a/*/b]}"), "spec.rules[0].match.paths[0]"),
        (rule("response: {status: 200}"), "spec.rules[0].response.status: 200 is no status of an error"),
        (rule("name: '7'"), "spec.rules[0].name: must not be a number"),
    ] {
        assert!(shown.contains(expected), "{shown}\n  expected {expected}");
    }
}

const MIXER_QUOTAS: &str = "
apiVersion: config.istio.io/v1alpha2
kind: memquota
metadata: {name: handler, namespace: shop}
spec:
  quotas:
  - name: requestcount.quota
    maxAmount: 1000
    validDuration: 1s
    overrides:
    - dimensions: {destination: ratings}
      maxAmount: 100
---
apiVersion: config.istio.io/v1alpha2
kind: quota
metadata: {name: requestcount, namespace: shop}
spec:
  dimensions:
    source: source.labels[\"app\"] | \"unknown\"
    destination: destination.labels[\"app\"] | \"unknown\"
---
apiVersion: config.istio.io/v1alpha2
kind: QuotaSpecBinding
metadata: {name: requestcount, namespace: shop}
spec: {quotaSpecs: [{name: requestcount}]}
";

#[test]
fn quotas_of_mixer_are_limits_and_it_is_said_what_became_of_them() {
    let shown = problems(MIXER_QUOTAS);
    let expected = [
        "f:5: warning: memquota shop/handler: spec: memquota was removed from Istio with Mixer",
        "f:19: warning: quota shop/requestcount: spec.dimensions.source: requests are counted by the identity",
        "f:23: warning: kind: QuotaSpecBinding was removed from Istio with Mixer",
    ];
    assert_eq!(shown.len(), expected.len(), "{shown:?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(shown.starts_with(expected), "{shown}");
    }
    let wrong = problems(&MIXER_QUOTAS.replace("maxAmount: 100\n", "maxAmount: 0\n      validDuration: 10ms\n"));
    assert!(wrong.iter().any(|one| one.contains("overrides[0].maxAmount: must be between 1")), "{wrong:?}");
    assert!(wrong.iter().any(|one| one.contains("overrides[0].validDuration: must be at least 50ms")), "{wrong:?}");
}

#[test]
fn dimensions_of_mixer_are_keys_or_labels() {
    use crate::mixer::{Dimension, dimension};
    use crate::rate_limit::RateLimitKey;
    let key = |key| Some(Dimension::Key(key));
    let none = RateLimitKey::default;
    for (expression, expected) in [
        ("destination.labels[\"app\"] | \"unknown\"", Some(Dimension::Workload("app".into()))),
        ("request.headers[\"x-user\"]", key(RateLimitKey { header: "x-user".into(), ..none() })),
        ("request.auth.claims[\"sub\"] | \"\"", key(RateLimitKey { claim: "sub".into(), ..none() })),
        ("request.path | \"/\"", key(RateLimitKey { path: true, ..none() })),
        ("source.ip", key(RateLimitKey { remote_address: true, ..none() })),
        ("source.workload.name", key(RateLimitKey { source_principal: true, ..none() })),
        ("destination.service", None),
        ("request.headers[x]", None),
        ("\"constant\"", None),
    ] {
        assert_eq!(dimension(expression), expected, "{expression}");
    }
}
