//! Whom discovery believes, and what it gives to whom.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_xds::WILDCARD;
use meltemi_xds::types::{CLUSTER, SECRET};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tonic::Code;

use crate::client::{Proxy, block_on, certificate, node, secure};
use crate::documents::ours;
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const ROOTS: &str = "istio-ca-root-cert";

/// The roots as a pod finds them.
pub fn roots(cluster: &Kubernetes, namespace: &str) -> String {
    until("the roots", || {
        let map = cluster.get("configmap", namespace, ROOTS)?;
        map["data"]["root-cert.pem"].as_str().map(str::to_owned)
    })
}

pub fn tokens(cluster: &Kubernetes) {
    cluster.namespace("tokens");
    cluster.ctl(&["create", "serviceaccount", "web", "-n", "tokens"]);
    let discovery = Discovery::start(cluster, &[]);
    let roots = roots(cluster, "tokens");
    let web = ("tokens", "web");
    let (good, other) = (cluster.token("tokens", "web", "istio-ca"), cluster.token("tokens", "web", "somebody-else"));
    block_on(async {
        let (identity, root) = certificate(discovery.secure, &roots, web, &good).await.expect("a certificate");
        let leaf = identity.info();
        assert_eq!(leaf.uri_sans, ["spiffe://cluster.local/ns/tokens/sa/web"]);
        assert_eq!(root.trim(), roots.trim());
        for (token, why) in [(other.as_str(), "another audience"), ("nonsense", "token refused")] {
            let status = certificate(discovery.secure, &roots, web, token).await.expect_err("a refusal");
            assert_eq!(status.code(), Code::Unauthenticated, "{why}: {status}");
        }
        cluster.api("stop");
        let status = certificate(discovery.secure, &roots, web, &other).await.expect_err("a refusal");
        assert_eq!(status.code(), Code::Unavailable, "to be tried again: {status}");
        cluster.api("start");
        certificate(discovery.secure, &roots, web, &good).await.expect("a certificate again");
    });
    let log = discovery.output();
    assert!(!log.contains(&good) && !log.contains(&other), "tokens are not logged");
}

pub fn roots_everywhere(cluster: &Kubernetes) {
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
    cluster.namespace("secrets");
    cluster.ctl(&["create", "serviceaccount", "gateway", "-n", "secrets"]);
    cluster.apply(&ours("gateways.networking.istio.io"));
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
        let (identity, _) =
            certificate(discovery.secure, &roots, ("secrets", "gateway"), &token).await.expect("a certificate");
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

/// Whoever has this account gets a certificate for ever, whatever is asked.
const ETERNAL: &str = "eternal";

/// Who signs for the cluster: approved requests to one signer, until told to stop.
fn sign(cluster: &Kubernetes, signer: &str, issuer: &Issuer<'_, KeyPair>, stop: &AtomicBool) {
    cluster.enter();
    while !stop.load(Ordering::Relaxed) {
        let all: Value = serde_json::from_str(&cluster.ctl(&["get", "csr", "-o", "json"])).expect("JSON");
        for request in all["items"].as_array().into_iter().flatten() {
            let status = &request["status"];
            let approved =
                status["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Approved"));
            if request["spec"]["signerName"] != signer || !approved || status["certificate"].is_string() {
                continue;
            }
            let text = STANDARD.decode(request["spec"]["request"].as_str().expect("a request")).expect("base64");
            let mut csr =
                CertificateSigningRequestParams::from_pem(&String::from_utf8(text).expect("PEM")).expect("a request");
            if !format!("{:?}", csr.params.subject_alt_names).contains(ETERNAL) {
                let life = request["spec"]["expirationSeconds"].as_u64().expect("seconds");
                csr.params.not_after = (SystemTime::now() + Duration::from_secs(life)).into();
            }
            let signed = STANDARD.encode(csr.signed_by(issuer).expect("a certificate").pem());
            let patch = json!({ "status": { "certificate": signed } }).to_string();
            let name = request["metadata"]["name"].as_str().expect("a name");
            cluster.ctl(&["patch", "csr", name, "--subresource=status", "--type=merge", "-p", &patch]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn external(cluster: &Kubernetes) {
    const SIGNER: &str = "example.com/mesh";
    cluster.namespace("external");
    for account in ["web", ETERNAL] {
        cluster.ctl(&["create", "serviceaccount", account, "-n", "external"]);
    }
    let _ = cluster.try_ctl(&["delete", "secret", "istio-ca-secret", "-n", "istio-system"], "");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "somebody else");
    let root = params.self_signed(&key).expect("a root").pem();
    let issuer = Issuer::new(params, key);
    let mesh = json!({ "caCertificates": [{ "pem": root, "certSigners": [SIGNER] }] }).to_string();
    let data = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio-external", "namespace": "istio-system" },
        "data": { "mesh": mesh },
    });
    cluster.apply(&data.to_string());
    let arguments = ["--revision", "external", "--externalCA", "ISTIOD_RA_KUBERNETES_API", "--k8sSigner", SIGNER];
    let discovery = Discovery::start(cluster, &arguments);
    let (roots, token) = (roots(cluster, "external"), cluster.token("external", "web", "istio-ca"));
    assert_eq!(roots.trim(), root.trim(), "the mesh has the signer's root and no other");
    assert!(cluster.get("secret", "istio-system", "istio-ca-secret").is_none(), "no root of our own is made");
    let for_ever = cluster.token("external", ETERNAL, "istio-ca");
    let (stop, web) = (AtomicBool::new(false), ("external", "web"));
    std::thread::scope(|scope| {
        scope.spawn(|| sign(cluster, SIGNER, &issuer, &stop));
        block_on(async {
            let issued = certificate(discovery.secure, &roots, web, &token).await;
            let other = certificate(discovery.secure, &roots, ("external", "admin"), &token).await;
            let eternal = certificate(discovery.secure, &roots, ("external", ETERNAL), &for_ever).await;
            stop.store(true, Ordering::Relaxed);
            let eternal = eternal.expect_err("a refusal").to_string();
            assert!(eternal.contains("is the longest"), "{eternal}");
            let (identity, signed_by) = issued.expect("a certificate");
            assert_eq!(identity.info().uri_sans, ["spiffe://cluster.local/ns/external/sa/web"]);
            assert_eq!(signed_by.trim(), root.trim());
            assert_eq!(other.expect_err("a refusal").code(), Code::InvalidArgument, "nobody is signed for by another");
            // Its certificates are those of workloads of the mesh.
            let target = secure(discovery.secure, &roots, identity).await;
            let mut proxy = Proxy::connect(target, node("sidecar", "external", "web"));
            proxy.subscribe(CLUSTER, &[WILDCARD]);
            proxy.until("anything", |proxy| proxy.has(CLUSTER, "PassthroughCluster")).await;
        });
    });
    assert_eq!(cluster.ctl(&["get", "csr", "-o", "name"]).trim(), "", "requests are taken away again");
    cluster.ctl(&["delete", "configmap", "istio-external", "-n", "istio-system"]);
}
