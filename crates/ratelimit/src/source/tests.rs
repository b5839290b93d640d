use super::*;

const VALID: &str = "domain: shop\ndescriptors:\n- key: user\n  rate_limit: {unit: second, requests_per_unit: 1}\n";

fn read(files: &[(&str, &str)]) -> Result<Documents, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let source = Source { paths: vec![folder.path().to_owned()], policies: Vec::new() };
    let prefix = format!("{}/", folder.path().display());
    source.read().map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn a_folder_is_its_documents() {
    let other = VALID.replace("shop", "bank");
    let documents = read(&[("a.yaml", VALID), ("b.yml", &other), ("README.md", "domain: no")]).unwrap();
    let domains: Vec<_> = documents.configurations.iter().map(|one| &*one.domain).collect();
    assert_eq!(domains, ["shop", "bank"]);
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_field() {
    for (text, expected) in [
        ("descriptors: []\n", "domain: required"),
        ("domain: a\ndescriptor: []\n", "a.yaml:2: error: descriptor: unknown field; did you mean `descriptors`?"),
        ("domain: a\ndescriptors:\n- key: x\n  rateLimit: {}\n", "did you mean `rate_limit`?"),
        ("domain: a\ndescriptors:\n- value: x\n", "descriptors[0].key: required"),
        ("domain: a\ndescriptors:\n- key: x\n  rate_limit: {unit: fortnight}\n", "descriptors[0].rate_limit.unit: "),
        ("domain: a\ndescriptors:\n- key: x\n- key: x\n", "descriptors[1]: another descriptor has key \"x\""),
        ("domain: a\ndescriptors:\n- key: x\n  rate_limit: {unlimited: true, unit: day}\n", "has no unit"),
        ("domain: a\ndescriptors:\n- key: x\n  value: z\n  share_threshold: true\n", "only for a value with a *"),
        (
            "domain: a\ndescriptors:\n- key: x\n  rate_limit: {unit: day, name: same, replaces: [{name: same}]}\n",
            "descriptors[0].rate_limit.replaces[0].name: a limit cannot replace itself",
        ),
    ] {
        let error = read(&[("a.yaml", text)]).expect_err(expected);
        assert!(error.starts_with("a.yaml:") && error.contains(expected), "{error}\n  expected {expected}");
    }
    let twice = read(&[("a.yaml", VALID), ("b.yaml", VALID)]).expect_err("one domain twice");
    assert_eq!(twice, "b.yaml: domain: another file has the domain \"shop\"");
}

#[test]
fn fields_without_effect_are_accepted_with_a_warning() {
    let text = VALID.replace("- key: user", "- key: user\n  detailed_metric: true\n  metadata: {a: {b: 1}}");
    let documents = read(&[("a.yaml", &text)]).unwrap();
    let warnings: Vec<_> = documents.warnings.iter().map(|problem| &*problem.path).collect();
    assert_eq!(warnings, ["descriptors[0].detailed_metric", "descriptors[0].metadata"]);
}

#[test]
fn a_changed_file_has_another_stamp() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, VALID).unwrap();
    let source = Source { paths: vec![folder.path().to_owned()], policies: Vec::new() };
    let before = source.stamps().unwrap();
    assert_eq!(source.stamps().unwrap(), before);
    std::fs::write(&file, format!("{VALID}\n")).unwrap();
    assert_ne!(source.stamps().unwrap(), before);
}

const POLICY: &str = "
apiVersion: meltemi.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: api, namespace: shop}
spec:
  rules:
  - name: users
    scope: GLOBAL
    provider: {address: 'ratelimit.infra:8081'}
    limit: {requests: 5, unit: MINUTE}
    by: [{header: x-user}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken}
spec: {hosts: 7}
";

fn policies(text: &str) -> Result<Documents, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("shop")).unwrap();
    std::fs::write(folder.path().join("shop/policies.yaml"), text).unwrap();
    let source = Source { paths: Vec::new(), policies: vec![folder.path().to_owned()] };
    source.read().map_err(|error| error.to_string())
}

#[test]
fn global_rules_of_policies_are_limits_too() {
    let documents = policies(POLICY).unwrap();
    let [own] = &documents.configurations[..] else { panic!("{documents:?}") };
    assert_eq!((&*own.domain, &*own.descriptors[0].value), ("meltemi", "shop/api/users"));
    let wrong = policies(&POLICY.replace("unit: MINUTE", "interval: 1s")).unwrap_err();
    assert!(wrong.contains("spec.rules[0].limit.interval: scope GLOBAL counts by unit"), "{wrong}");
}
