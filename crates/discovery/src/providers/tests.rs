use meltemi_model::{Options, Shared};
use meltemi_registry::Registry;

use super::*;

fn snapshot(provider: &str, mesh: &str) -> Snapshot {
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: a}}\n\
         spec: {{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: deny, namespace: a}}\n\
         spec: {{action: DENY, rules: [{{}}]}}\n"
    );
    let mut registry = Registry::default();
    let mesh = meltemi_config::parse_mesh_config("mesh.yaml", mesh).unwrap().value;
    let mesh = registry.set_mesh(&Shared::new(mesh)).mesh;
    let objects = meltemi_config::objects("test.yaml", &yaml).unwrap();
    let mut update = registry.load(&objects);
    update.mesh = mesh;
    Snapshot::build(Options::default(), &update)
}

const MESH: &str =
    "extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: opa.a.svc.cluster.local, port: 9191}}]";

#[test]
fn a_policy_without_its_provider_is_told_with_what_was_meant() {
    let told = |provider: &str, mesh: &str| -> Vec<String> {
        let snapshot = snapshot(provider, mesh);
        missing(&snapshot).iter().map(|(policy, provider)| told(&snapshot, policy, provider)).collect()
    };
    let said = |provider: &str, meant: &str| {
        format!(
            "AuthorizationPolicy a/ask: spec.provider.name: no external authorizer of extensionProviders is named \
             \"{provider}\", so whatever the rules match is denied{meant}"
        )
    };
    assert_eq!(told("opa", MESH), [""; 0]);
    assert_eq!(told("oba", MESH), [said("oba", "; did you mean `opa`?")]);
    assert_eq!(told("opa", "{}"), [said("opa", "")]);
    assert_eq!(told("prometheus", MESH), [said("prometheus", "")], "it measures, and is asked about nothing");
}

#[test]
fn what_was_told_is_told_again_only_after_it_was_mended() {
    let mut known = Missing::default();
    known.follow(&snapshot("oba", MESH));
    assert_eq!(known.0.len(), 1);
    known.follow(&snapshot("opa", MESH));
    assert!(known.0.is_empty());
}
