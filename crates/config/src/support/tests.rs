use std::collections::BTreeSet;

use super::*;
use crate::parse::{parse_documents, parse_mesh_config};

#[test]
fn every_row_is_about_a_field_that_exists() {
    for row in ROWS {
        for kind in row.kinds {
            // `{prefix}` stands for the keys that begin so.
            let path = row.path.replace("{@request.auth.claims}", "{}");
            let found = fields::of_kind(*kind).iter().any(|(field, _)| covers(&path, field));
            assert!(found, "{kind} has no {}", row.path);
        }
    }
    for row in MESH_ROWS {
        assert!(mesh_fields().any(|f| covers(row.path, &f.path)), "MeshConfig has no {}", row.path);
    }
}

#[test]
fn the_list_holds_every_field_of_every_kind() {
    let all: Vec<Field> = fields().collect();
    let has = |of: &str, path: &str| all.iter().find(|f| f.of == of && f.path == path).map(|f| f.status);
    assert_eq!(has("VirtualService", "spec.http[].route[].headers.request.set{}"), Some(Status::Enforced));
    assert_eq!(has("VirtualService", "spec.tcp[].route[].weight"), Some(Status::Enforced));
    assert_eq!(has("VirtualService", "spec.exportTo[]"), Some(Status::Enforced));
    assert_eq!(has("VirtualService", "spec.http[].match[].headers{}.exact"), Some(Status::Enforced));
    assert_eq!(has("AuthorizationPolicy", "spec.rules[].from[].source.ipBlocks[]"), Some(Status::Enforced));
    assert_eq!(has("VirtualService", "spec.tcp[].match[].sourceSubnet"), Some(Status::NoEffect));
    assert_eq!(has("Gateway", "spec.servers[].defaultEndpoint"), Some(Status::NoEffect));
    assert_eq!(has("Sidecar", "spec.ingress[].defaultEndpoint"), Some(Status::Enforced));
    assert_eq!(has("Service", "spec.sessionAffinity"), Some(Status::PartlyEnforced(&["ClientIP"])));
    assert_eq!(has("ServiceEntry", "spec.resolution"), Some(Status::Enforced));
    assert_eq!(has("DestinationRule", "spec.trafficPolicy.tunnel.protocol"), Some(Status::Enforced));
    assert_eq!(has("PeerAuthentication", "spec.portLevelMtls{}.mode"), Some(Status::Enforced));
    assert_eq!(has("Deployment", "spec.template.spec.affinity"), Some(Status::NotUsed));
    assert_eq!(has("EnvoyFilter", "spec.configPatches[].patch.operation"), Some(Status::NotEnforced));
    assert_eq!(has("MeshConfig", "defaultConfig.connectionSettings.httpMergeSlashes"), Some(Status::NotEnforced));
    assert_eq!(has("MeshConfig", "meshMTLS.cipherSuites[]"), Some(Status::Enforced));
    let unique: BTreeSet<_> = all.iter().map(|f| (f.of, &f.path)).collect();
    assert_eq!(unique.len(), all.len());
    assert!(all.len() > 900, "{}", all.len());
}

/// The published CRDs have exactly the fields that our types have.
#[test]
fn the_types_have_the_fields_of_istios_crds() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/peer/crds/customresourcedefinitions.gen.yaml");
    let Ok(text) = std::fs::read_to_string(file) else {
        eprintln!("skipped: no ../shared");
        return;
    };
    let mut compared = 0;
    for part in text.split("\n---\n") {
        let Ok(crd) = serde_saphyr::from_str::<Value>(part) else { continue };
        let name = crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let group = crd["spec"]["group"].as_str().unwrap_or_default();
        let Some(kind) = Kind::find(group, name) else { continue };
        let versions = crd["spec"]["versions"].as_array().expect("versions");
        let served: BTreeSet<_> = versions.iter().filter_map(|v| v["name"].as_str()).collect();
        assert_eq!(served, kind.info().versions.iter().copied().collect(), "{name}");
        let storage = versions.iter().find(|v| v["storage"] == true).expect("a storage version");
        let mut theirs = BTreeSet::new();
        leaves(&storage["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut theirs);
        theirs.retain(|p| !p.contains('_'));
        let ours: BTreeSet<_> = fields::of_kind(kind).into_iter().map(|(path, _)| path).collect();
        let missing: Vec<_> = theirs.difference(&ours).collect();
        let extra: Vec<_> = ours.difference(&theirs).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{name}: missing {missing:#?}, extra {extra:#?}");
        compared += 1;
    }
    assert_eq!(compared, 15);
}

fn leaves(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            leaves(inner, &format!("{path}.{name}"), out);
        }
    } else if schema["items"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), out);
    } else if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &format!("{path}{{}}"), out);
    } else if schema["x-kubernetes-preserve-unknown-fields"] == true {
        out.insert(format!("{path}{{}}"));
    } else {
        out.insert(path.to_owned());
    }
}

fn shown(text: &str) -> Vec<String> {
    let documents = parse_documents("f", text);
    documents.iter().flat_map(|d| d.check()).map(|p| p.to_string()).collect()
}

#[test]
fn what_is_set_and_not_enforced_is_a_warning_at_its_line() {
    let head = |kind: &str| format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n");
    let text = format!(
        "{}  hosts: [a]\n  tcp:\n  - match: [{{sourceSubnet: 10.0.0.0/8}}]\n    route: [{{destination: {{host: a}}}}]\n",
        head("VirtualService")
    );
    assert_eq!(
        shown(&text),
        [
            "f:7: warning: VirtualService default/a: spec.tcp[0].match[0].sourceSubnet: sourceSubnet is accepted and has no \
          effect, as in Istio: use sourceLabels or sourceNamespace"
        ]
    );
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: [{port: 80}]\n  sessionAffinity: ClientIP\n";
    assert_eq!(
        shown(text),
        [
            "f:6: warning: Service default/a: spec.sessionAffinity: sessionAffinity ClientIP is accepted but not enforced yet"
        ]
    );
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  targetRefs: [{kind: Service, name: b}]\n";
    assert_eq!(
        shown(text),
        [
            "f:5: warning: AuthorizationPolicy default/a: spec.targetRefs[0].kind: kind Service is accepted but not enforced \
          yet: a waypoint's policy: it applies to no sidecar and to no gateway"
        ]
    );
}

#[test]
fn a_mesh_config_is_warned_about_what_it_sets_not_about_defaults() {
    let read = |text: &str| unsupported_mesh(&parse_mesh_config("m", text).expect("valid").value);
    assert_eq!(read(""), []);
    assert_eq!(read("ingressClass: other"), []);
    let found = read("hboneIdleTimeout: 5s\nserviceScopeConfigs: [{scope: GLOBAL}]");
    let paths: Vec<_> = found.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["serviceScopeConfigs", "hboneIdleTimeout"]);
}
