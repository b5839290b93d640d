//! Whom discovery believes, and what it gives to whom.

use std::time::Duration;

use meltemi_xds::types::SECRET;
use tonic::Code;

use crate::client::{Proxy, block_on, certificate, node, secure};
use crate::documents::definition;
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const ROOTS: &str = "istio-ca-root-cert";

/// The roots as a pod finds them.
fn roots(cluster: &Kubernetes, namespace: &str) -> String {
    until("the roots", || {
        let map = cluster.get("configmap", namespace, ROOTS)?;
        map["data"]["root-cert.pem"].as_str().map(str::to_owned)
    })
}

pub fn tokens(cluster: &Kubernetes) {
    cluster.namespace("istio-system");
    cluster.namespace("tokens");
    cluster.ctl(&["create", "serviceaccount", "web", "-n", "tokens"]);
    let discovery = Discovery::start(cluster, &[]);
    let roots = roots(cluster, "tokens");
    let (good, other) = (cluster.token("tokens", "web", "istio-ca"), cluster.token("tokens", "web", "somebody-else"));
    block_on(async {
        let (identity, root) = certificate(discovery.secure, &roots, &good).await.expect("a certificate");
        let leaf = identity.info();
        assert_eq!(leaf.uri_sans, ["spiffe://cluster.local/ns/tokens/sa/web"]);
        assert_eq!(root.trim(), roots.trim());
        for (token, why) in [(other.as_str(), "another audience"), ("nonsense", "token refused")] {
            let status = certificate(discovery.secure, &roots, token).await.err().expect("a refusal");
            assert_eq!(status.code(), Code::Unauthenticated, "{why}: {status}");
        }
        cluster.api("stop");
        let status = certificate(discovery.secure, &roots, &other).await.err().expect("a refusal");
        assert_eq!(status.code(), Code::Unavailable, "to be tried again: {status}");
        cluster.api("start");
        certificate(discovery.secure, &roots, &good).await.expect("a certificate again");
    });
    let log = discovery.output();
    assert!(!log.contains(&good) && !log.contains(&other), "tokens are not logged");
}

pub fn roots_everywhere(cluster: &Kubernetes) {
    cluster.namespace("istio-system");
    let _discovery = Discovery::start(cluster, &[]);
    let first = roots(cluster, "default");
    assert!(first.starts_with("-----BEGIN CERTIFICATE-----"), "{first}");
    cluster.namespace("roots-late");
    assert_eq!(roots(cluster, "roots-late"), first);
    let patch = r#"{"data": {"root-cert.pem": "altered"}}"#;
    cluster.ctl(&["patch", "configmap", ROOTS, "-n", "roots-late", "--type=merge", "-p", patch]);
    until("what it was", || (roots(cluster, "roots-late") == first).then_some(()));
    cluster.ctl(&["delete", "configmap", ROOTS, "-n", "roots-late"]);
    assert_eq!(roots(cluster, "roots-late"), first);
    assert!(cluster.get("configmap", "kube-system", ROOTS).is_none(), "the cluster's own namespaces are left alone");
}

pub fn one_root(cluster: &Kubernetes) {
    cluster.namespace("istio-system");
    let _ = cluster.try_ctl(&["delete", "secret", "istio-ca-secret", "-n", "istio-system"], "");
    let mut replicas = [Discovery::launch(cluster, &[]), Discovery::launch(cluster, &[])];
    replicas.iter_mut().for_each(Discovery::wait);
    let signer = |discovery: &Discovery| discovery.json("/debug/authorityz")["roots"][0].clone();
    assert_eq!(signer(&replicas[0]), signer(&replicas[1]));
    let secret = cluster.get("secret", "istio-system", "istio-ca-secret").expect("the Secret");
    assert_eq!(secret["type"], "istio.io/ca-root");
    assert!(secret["data"]["ca-key.pem"].is_string() && secret["data"]["ca-cert.pem"].is_string());
    for replica in &replicas {
        assert!(!replica.output().contains("PRIVATE KEY"), "keys are not logged");
    }
}

const GATEWAY: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: secrets}\n\
    spec:\n  selector: {app: gateway}\n  servers:\n  - port: {number: 443, name: https, protocol: HTTPS}\n    \
    hosts: [\"*\"]\n    tls: {mode: SIMPLE, credentialName: web-cert}\n";

const ROLE: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: secrets}\n\
    rules: [{apiGroups: [\"\"], resources: [secrets], verbs: [get, watch, list]}]\n---\n\
    apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: reader, namespace: secrets}\n\
    roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}\n\
    subjects: [{kind: ServiceAccount, name: gateway, namespace: secrets}]\n";

pub fn secrets(cluster: &Kubernetes) {
    cluster.namespace("istio-system");
    cluster.namespace("secrets");
    cluster.ctl(&["create", "serviceaccount", "gateway", "-n", "secrets"]);
    cluster.apply(&definition("networking.istio.io", "Gateway", "gateways", &["v1"], "Namespaced"));
    until("the definition", || cluster.try_ctl(&["apply", "-f", "-"], GATEWAY).status.success().then_some(()));
    let own = rcgen::generate_simple_self_signed(["web.example.com".to_owned()]).expect("a certificate");
    let (chain, key) = (cluster.folder().join("web.crt"), cluster.folder().join("web.key"));
    std::fs::write(&chain, own.cert.pem()).expect("write");
    std::fs::write(&key, own.signing_key.serialize_pem()).expect("write");
    let (chain, key) = (format!("--cert={}", chain.display()), format!("--key={}", key.display()));
    cluster.ctl(&["create", "secret", "tls", "web-cert", "-n", "secrets", &chain, &key]);
    let discovery = Discovery::start(cluster, &[]);
    let roots = roots(cluster, "secrets");
    let token = cluster.token("secrets", "gateway", "istio-ca");
    let name = "kubernetes://web-cert";
    block_on(async {
        let (identity, _) = certificate(discovery.secure, &roots, &token).await.expect("a certificate");
        let target = secure(discovery.secure, &roots, identity).await;
        let mut gateway = Proxy::connect(target, node("router", "secrets", "gateway"));
        gateway.subscribe(SECRET, &[name]);
        assert!(
            !gateway.reaches(Duration::from_secs(3), |proxy| proxy.has(SECRET, name)).await,
            "it may not read secrets"
        );
        let mut nobody = Proxy::plain(discovery.grpc, node("router", "secrets", "gateway"));
        nobody.subscribe(SECRET, &[name]);
        cluster.apply(ROLE);
        gateway.until("the certificate", |proxy| proxy.has(SECRET, name)).await;
        assert!(!nobody.reaches(Duration::from_secs(3), |proxy| proxy.has(SECRET, name)).await, "who proved nothing");
    });
    assert!(!discovery.output().contains("PRIVATE KEY"), "keys are not logged");
}
