use super::*;

const INPUT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
";
const STATUS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
status:
  conditions:
  - {type: Accepted, status: 'True', reason: Accepted, message: Handled by Istio controller, lastTransitionTime: fake}
";

fn case(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn arguments(folder: &Path) -> Arguments {
    Arguments { folders: vec![folder.to_owned()], conversion: true, fixtures: None }
}

#[test]
fn a_case_passes_where_its_statuses_are_equal_and_says_what_differs_where_not() {
    let equal = case(&[("input.yaml", INPUT), ("expected-status.yaml", STATUS), ("expected.yaml", "")]);
    assert_eq!(play(&arguments(equal.path()), equal.path()).unwrap(), [""; 0]);
    let other = STATUS.replace("reason: Accepted", "reason: Other");
    let differs = case(&[("input.yaml", INPUT), ("expected-status.yaml", &other), ("expected.yaml", "")]);
    let found = play(&arguments(differs.path()), differs.path()).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("status of GatewayClass istio:") && found[0].contains("Other"), "{found:?}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = case(&[("input.yaml", INPUT)]);
    let error = play(&arguments(folder.path()), folder.path()).unwrap_err();
    assert!(error.to_string().ends_with("expected-status.yaml"), "{error}");
    let broken = case(&[("input.yaml", INPUT), ("expected-status.yaml", "a: [")]);
    let error = format!("{:#}", play(&arguments(broken.path()), broken.path()).unwrap_err());
    assert!(error.contains("expected status"), "{error}");
    let nowhere = Arguments { fixtures: Some("/nowhere".into()), ..arguments(folder.path()) };
    assert!(play(&nowhere, folder.path()).unwrap_err().to_string().contains("kubernetes-objects.yaml"));
}
