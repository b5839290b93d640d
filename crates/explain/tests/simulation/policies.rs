//! Listeners with every policy of Istio's authorization cases, and every field of a token rule, before a real Envoy.

use std::path::Path;
use std::sync::Arc;

use meltemi_config::Spec;
use meltemi_explain::Sent;
use meltemi_model::{Node, NodeDescription, Options, Shared, Snapshot};
use meltemi_registry::Registry;
use meltemi_translate::Cache;
use serde_json::{Map, json};

const DOCUMENTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: foo}
spec: {clusterIP: 10.0.0.1, selector: {app: httpbin}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: my-custom-ext-authz, namespace: foo}
spec: {clusterIP: 10.0.0.2, ports: [{name: grpc, port: 9000}, {name: http, port: 8000}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: foo}
spec:
  jwtRules:
  - issuer: full
    jwks: '{\"keys\":[]}'
    audiences: [a, b]
    fromHeaders: [{name: x-jwt, prefix: 'Bearer '}]
    fromParams: [token]
    fromCookies: [session]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-sub, claim: nested.sub}]
    forwardOriginalToken: true
    spaceDelimitedClaims: [groups]
  - {issuer: unknown, jwksUri: 'https://keys.example.com/k'}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: http, namespace: foo}
spec: {action: CUSTOM, provider: {name: http}, rules: [{to: [{operation: {paths: ['/http/{*}/x/{**}']}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: lost, namespace: foo}
spec: {action: CUSTOM, provider: {name: lost}, rules: [{when: [{key: remote.ip, values: [10.0.0.0/8]}]}]}
";

const MESH: &str = "
extensionProviders:
- name: default
  envoyExtAuthzGrpc: {service: my-custom-ext-authz.foo.svc.cluster.local, port: 9000, failOpen: true, statusOnError: '503'}
- name: http
  envoyExtAuthzHttp:
    service: my-custom-ext-authz.foo.svc.cluster.local
    port: 8000
    timeout: 1s
    pathPrefix: /check
    clearRouteCache: true
    includeRequestHeadersInCheck: [x-a, 'x-*', '*-z']
    includeAdditionalHeadersInCheck: {x-b: c}
    includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true, packAsBytes: true}
    headersToUpstreamOnAllow: [x-user]
    headersToDownstreamOnDeny: [x-reason]
    headersToDownstreamOnAllow: [x-ok]
";

/// Our documents and the policies of all cases, each under a name of its own.
fn snapshot(cases: &Path) -> Option<Snapshot> {
    let mut objects = meltemi_config::objects("test.yaml", DOCUMENTS).unwrap();
    for (index, entry) in std::fs::read_dir(cases).ok()?.enumerate() {
        let text = std::fs::read_to_string(entry.unwrap().path().join("input.yaml")).unwrap();
        for mut object in meltemi_config::parse_documents("case", &text).into_iter().filter_map(|d| d.object) {
            let meta = Arc::make_mut(&mut object.meta);
            meta.name = format!("{}-{index}", meta.name).into();
            meta.namespace = "foo".into();
            if matches!(object.spec, Spec::AuthorizationPolicy(_)) {
                objects.push(object);
            }
        }
    }
    let mesh = Shared::new(meltemi_config::parse_mesh_config("mesh", MESH).unwrap().value);
    let mut registry = Registry::default();
    registry.set_mesh(&mesh);
    let mut update = registry.load(&objects);
    update.mesh = Some(mesh);
    Some(Snapshot::build(Options { several_external_authorizers: true, ..Options::default() }, &update))
}

#[test]
fn envoy_takes_every_policy() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/authz/cases");
    let Some(snapshot) = snapshot(&cases) else {
        println!("skipped: ../shared/peer/authz is not there");
        return;
    };
    let metadata = json!({"LABELS": {"app": "httpbin", "version": "v1"}, "DIALECT": "envoy"});
    let description = NodeDescription {
        id: "sidecar~10.1.0.1~web.foo~foo.svc.cluster.local".into(),
        metadata: metadata.as_object().cloned().unwrap_or_else(Map::new),
        ..NodeDescription::default()
    };
    let sent = Sent::generate(&snapshot, &Node::new(description).unwrap(), &Cache::default(), &[]);
    let inbound = sent.listeners.iter().find(|listener| &*listener.name == "virtualInbound").unwrap();
    let text = |needle: &str| inbound.body.value.windows(needle.len()).any(|window| window == needle.as_bytes());
    for part in
        ["http.jwt_authn", "http.ext_authz", "network.ext_authz", "bad-CUSTOM-action", "istio-ext-authz-default"]
    {
        assert!(text(part), "no {part}");
    }
    assert_eq!(sent.refusals(), Vec::<String>::new());
    if std::env::var_os("MELTEMI_ENVOY").is_none() {
        println!("skipped: MELTEMI_ENVOY names no Envoy");
    }
    assert_eq!(super::envoy::refusal(&sent, "policies"), None);
}
