use serde_json::json;

use super::*;
use crate::path::find;

fn document(spec: &str) -> Source {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n{indented}");
    Source { name: "mesh.yaml".to_owned(), text }
}

fn resolve(spec: &str) -> Operator {
    let request = Request { documents: vec![document(spec)], ..Request::default() };
    Operator::resolve(&request).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn with_settings(settings: &[&str]) -> Result<Operator, Vec<String>> {
    let settings = settings.iter().map(|text| (*text).to_owned()).collect();
    let resolved = Operator::resolve(&Request { settings, ..Request::default() });
    resolved.map_err(|errors| errors.iter().map(Notice::to_string).collect())
}

#[test]
fn components_that_are_gone_are_said_to_be() {
    let operator = resolve(
        "components:\n  citadel:\n    enabled: true\n  galley:\n    enabled: true\n  policy:\n    enabled: true\n",
    );
    let notices: Vec<_> = operator.notices.iter().map(Notice::to_string).collect();
    let citadel =
        "mesh.yaml: spec.components.citadel: has no effect: the certificate authority is part of the control plane";
    assert_eq!(notices[0], citadel);
    assert_eq!(notices.len(), 3);
    assert_eq!(find(&operator.components, "citadel"), None);
}

#[test]
fn old_fields_get_their_new_names() {
    let operator = resolve("values:\n  global:\n    mtls:\n      auto: false\n    proxy:\n      concurrency: 2\n");
    assert_eq!(find(&operator.values, "meshConfig.enableAutoMtls"), Some(&json!(false)));
    assert_eq!(find(&operator.values, "meshConfig.defaultConfig.concurrency"), Some(&json!(2)));
    assert_eq!(operator.notices.len(), 2);
}

#[test]
fn what_the_new_name_says_wins_over_the_old_one() {
    let operator = resolve("meshConfig:\n  enableAutoMtls: true\nvalues:\n  global:\n    mtls:\n      auto: false\n");
    assert_eq!(find(&operator.values, "meshConfig.enableAutoMtls"), Some(&json!(true)));
}

#[test]
fn an_unknown_field_is_a_notice_with_a_suggestion_and_an_error_when_strict() {
    let operator = resolve("components:\n  pilto:\n    enabled: true\n");
    let expected =
        "mesh.yaml: spec.components.pilto: is no field of an IstioOperator, and has no effect; did you mean `pilot`?";
    assert_eq!(operator.notices[0].to_string(), expected);
    let documents = vec![document("components:\n  pilto:\n    enabled: true\n")];
    let strict = Operator::resolve(&Request { documents, strict: true, ..Request::default() });
    assert_eq!(strict.unwrap_err()[0].to_string(), expected);
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_path() {
    let documents = vec![document("components:\n  pilot:\n    enabled: maybe\n    k8s: []\n")];
    let errors = Operator::resolve(&Request { documents, ..Request::default() }).unwrap_err();
    assert_eq!(errors[0].to_string(), "mesh.yaml: spec.components.pilot.enabled: is a string, not a boolean");
}

#[test]
fn metrics_of_an_older_autoscaling_are_rewritten() {
    let spec = "components:\n  pilot:\n    k8s:\n      hpaSpec:\n        metrics:\n        - type: Resource\n          resource:\n            name: cpu\n            targetAverageUtilization: 70\n";
    let operator = resolve(spec);
    let target = operator.components.pointer("/pilot/k8s/hpaSpec/metrics/0/resource/target");
    assert_eq!(target, Some(&json!({"type": "Utilization", "averageUtilization": 70})));
    assert_eq!(operator.notices.len(), 1);
}

#[test]
fn later_documents_and_settings_win() {
    let documents = vec![document("hub: a\ntag: 1\n"), document("hub: b\n")];
    let settings = vec!["tag=v2".to_owned(), "values.pilot.replicaCount=3".to_owned()];
    let operator = Operator::resolve(&Request { documents, settings, ..Request::default() }).unwrap();
    assert_eq!(find(&operator.values, "global.hub"), Some(&json!("b")));
    assert_eq!(find(&operator.values, "global.tag"), Some(&json!("v2")));
    assert_eq!(find(&operator.values, "pilot.replicaCount"), Some(&json!(3)));
}

#[test]
fn settings_reach_into_lists_by_index_and_by_key() {
    let spec = "components:\n  ingressGateways:\n  - name: a\n    enabled: true\n  - name: b\n    enabled: true\n";
    let settings = vec![
        "components.ingressGateways.[name:b].enabled=false".to_owned(),
        "components.ingressGateways.[0].k8s.replicaCount=2".to_owned(),
    ];
    let operator =
        Operator::resolve(&Request { documents: vec![document(spec)], settings, ..Request::default() }).unwrap();
    let expected = json!([{"name": "a", "enabled": true, "k8s": {"replicaCount": 2}}, {"name": "b", "enabled": false}]);
    assert_eq!(operator.components["ingressGateways"], expected);
}

#[test]
fn settings_that_fit_nothing_are_refused() {
    assert_eq!(with_settings(&["hub"]).unwrap_err(), ["--set: \"hub\": not of the form PATH=VALUE"]);
    assert_eq!(with_settings(&["a..b=1"]).unwrap_err(), ["--set: \"a..b\": the path is empty or a part of it is"]);
    let error = with_settings(&["components.pilot.enabled=yes"]).unwrap_err();
    assert_eq!(error, ["--set: spec.components.pilot.enabled: is a string, not a boolean"]);
}

#[test]
fn a_revision_is_a_label() {
    assert_eq!(with_settings(&["revision=1-20"]).unwrap().revision.as_deref(), Some("1-20"));
    let error = with_settings(&["revision=v1.20"]).unwrap_err();
    assert!(error[0].contains("spec.revision: \"v1.20\" is no DNS label"), "{error:?}");
}

#[test]
fn documents_of_another_kind_and_several_in_one_file_are_refused() {
    let other = Source { name: "a.yaml".to_owned(), text: "apiVersion: v1\nkind: Pod\n".to_owned() };
    let errors = Operator::resolve(&Request { documents: vec![other], ..Request::default() }).unwrap_err();
    assert_eq!(errors[0].to_string(), "a.yaml: is \"v1 Pod\", not install.istio.io/v1alpha1 IstioOperator");
    let one = document("hub: a\n").text;
    let two = Source { name: "b.yaml".to_owned(), text: format!("{one}---\n{one}") };
    let errors = Operator::resolve(&Request { documents: vec![two], ..Request::default() }).unwrap_err();
    assert_eq!(errors[0].to_string(), "b.yaml: holds 2 documents; one IstioOperator a file is taken");
}

#[test]
fn an_adopted_mesh_lies_under_what_is_written() {
    let mesh = Some(json!({"accessLogFile": "/dev/stdout", "trustDomain": "old"}));
    let networks = Some(json!({"n1": {}}));
    let adopted = Adopted { mesh, networks };
    let documents = vec![document("meshConfig:\n  trustDomain: new\n")];
    let operator = Operator::resolve(&Request { documents, adopted, ..Request::default() }).unwrap();
    assert_eq!(operator.values["meshConfig"], json!({"accessLogFile": "/dev/stdout", "trustDomain": "new"}));
    assert_eq!(find(&operator.values, "global.meshNetworks"), Some(&json!({"n1": {}})));
}

/// Documents for versions of before, as they are still found.
#[test]
fn documents_of_before_resolve_and_all_that_is_retired_is_said() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/operator/documents");
    let mut said = String::new();
    for name in ["components-of-1.4.yaml", "tuning-of-1.5.yaml", "production.yaml"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let documents = vec![Source { name: name.to_owned(), text }];
        let operator = Operator::resolve(&Request { documents, ..Request::default() }).unwrap();
        said.extend(operator.notices.iter().map(|notice| format!("{notice}\n")));
        if name == "production.yaml" {
            assert_eq!(find(&operator.values, "meshConfig.outboundTrafficPolicy.mode"), Some(&json!("REGISTRY_ONLY")));
        }
    }
    let golden = folder.join("said.txt");
    if std::env::var_os("MELTEMI_BLESS").is_some() {
        std::fs::write(&golden, &said).unwrap();
    }
    assert_eq!(said, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn every_field_stands_once_and_moves_to_one_that_is_used() {
    let total: usize = fields::SECTIONS.iter().map(|section| section.fields.len()).sum();
    assert_eq!(check::fields().count(), total);
    for (path, field) in check::fields() {
        if let fields::Fate::Moved(to) = field.fate {
            let mesh = to.starts_with("meshConfig.");
            let known = check::fields().any(|(path, field)| path == to && field.fate == fields::Fate::Used);
            assert!(mesh || known, "{path} moves to {to}");
        }
    }
}

#[test]
fn platforms_are_laid_between_the_profile_and_what_is_said() {
    let values = |settings: &[&str]| {
        let operator = with_settings(settings).unwrap();
        (operator.values, operator.notices.iter().map(Notice::to_string).collect::<Vec<_>>())
    };
    let (gke, notices) = values(&["values.global.platform=gke"]);
    assert_eq!(find(&gke, "cni.cniBinDir"), Some(&json!("/home/kubernetes/bin")));
    assert!(notices.is_empty(), "{notices:?}");
    let (own, _) = values(&["values.global.platform=k3s", "values.cni.cniBinDir=/own"]);
    assert_eq!(find(&own, "cni.cniBinDir"), Some(&json!("/own")));
    assert_eq!(find(&own, "cni.cniConfDir"), Some(&json!("/var/lib/rancher/k3s/agent/etc/cni/net.d")));
    let (openshift, _) = values(&["values.global.platform=openshift", "profile=minimal"]);
    assert_eq!(find(&openshift, "cni.provider"), Some(&json!("multus")));
    let (_, notices) = values(&["values.global.platform=plan9"]);
    assert!(notices[0].contains("\"plan9\": nothing is known of it; known are gke"), "{notices:?}");
}

#[test]
fn settings_have_helms_forms() {
    let operator = with_settings(&[
        "values.global.imagePullSecrets={a,b}",
        "meshConfig.defaultConfig.proxyMetadata.FLAG=true",
        "values.pilot.env.PILOT_LIST=x\\,y",
        " values.pilot.traceSampling = 5 ",
    ])
    .unwrap();
    assert_eq!(find(&operator.values, "global.imagePullSecrets"), Some(&json!(["a", "b"])));
    assert_eq!(find(&operator.values, "meshConfig.defaultConfig.proxyMetadata.FLAG"), Some(&json!("true")));
    assert_eq!(find(&operator.values, "pilot.env.PILOT_LIST"), Some(&json!("x,y")));
    assert_eq!(find(&operator.values, "pilot.traceSampling"), Some(&json!(5)));
}

#[test]
fn a_signer_of_kubernetes_may_sign_for_discovery_where_others_sign_at_all() {
    let with = |settings: &[&str]| {
        let provider = "values.global.pilotCertProvider=k8s.io/a.io/own";
        with_settings(&[&[provider], settings].concat()).unwrap()
    };
    let about = |operator: &Operator| operator.notices.iter().any(|notice| notice.path.ends_with("pilotCertProvider"));
    assert!(about(&with(&[])));
    assert!(!about(&with(&["values.pilot.env.EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API"])));
    for wrong in ["kubernetes", "k8s.io/"] {
        let error = with_settings(&[&format!("values.global.pilotCertProvider={wrong}")]).unwrap_err();
        assert!(error[0].contains("one of istiod, custom, none, k8s.io/SIGNER"), "{error:?}");
    }
}
