//! The authority's Secrets: another root in them while replicas run, and lists of what is revoked.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_xds::WILDCARD;
use meltemi_xds::types::CLUSTER;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

use crate::client::{Proxy, block_on, node};
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const HOME: &str = "istio-system";
const OWN: &str = "istio-ca-secret";
const FORMER: &str = "istio-ca-former-roots";

/// A root that is always near its end, and whose certificates end soon.
const HASTE: [&str; 11] = [
    "--selfSignedCACertTTL=10m",
    "--maxWorkloadCertTTL=5m",
    "--workloadCertTTL=1m",
    "--selfSignedRootCheckInterval=1s",
    "--selfSignedRootCheckJitter=false",
    "--selfSignedRootGracePercent=100",
    // In which the proxies of the test connect.
    "--rootDistributionMin=15s",
    "--rootDistributionMax=1h",
    "--trust-domain=cluster.local",
    "--debounceMax=100ms",
    "--podName",
];

fn start(cluster: &Kubernetes, name: &'static str) -> Discovery {
    Discovery::start(cluster, &[&HASTE[..], &[name]].concat())
}

fn status(discovery: &Discovery) -> Value {
    discovery.json("/debug/authorityz")
}

fn signer(discovery: &Discovery) -> String {
    status(discovery)["signer"]["serialNumber"].as_str().expect("a number").to_owned()
}

/// Whether the root is trusted, and is not in the Secret that counts.
fn remembers(discovery: &Discovery, root: &str) -> bool {
    let roots = status(discovery)["roots"].clone();
    roots
        .as_array()
        .is_some_and(|roots| roots.iter().any(|known| known["serialNumber"] == root && known["inFiles"] == false))
}

fn is_awaited(cluster: &Kubernetes, replica: &str) -> bool {
    let secret = cluster.get("secret", HOME, OWN).expect("the Secret");
    let note = secret["metadata"]["annotations"]["meltemi.io/next-root-awaited-by"].as_str().unwrap_or_default();
    note.contains(replica)
}

pub fn rotation(cluster: &Kubernetes) {
    for name in [OWN, FORMER] {
        let _ = cluster.try_ctl(&["delete", "secret", name, "-n", HOME], "");
    }
    let replicas = [start(cluster, "istiod-a"), start(cluster, "istiod-b")];
    let first = signer(&replicas[0]);
    // Proxies that do not ask for roots cannot say that they have them.
    let waiting: Vec<Proxy> = block_on(async {
        let mut waiting = Vec::new();
        for replica in &replicas {
            let mut proxy = Proxy::plain(replica.grpc, node("sidecar", "default", "old"));
            proxy.subscribe(CLUSTER, &[WILDCARD]);
            proxy.until("anything", |proxy| proxy.has(CLUSTER, "PassthroughCluster")).await;
            waiting.push(proxy);
        }
        until("the notes", || ["istiod-a_", "istiod-b_"].iter().all(|name| is_awaited(cluster, name)).then_some(()));
        waiting
    });
    let secret = cluster.get("secret", HOME, OWN).expect("the Secret");
    assert!(secret["data"]["ca-next-cert.pem"].is_string() && secret["data"]["ca-next-key.pem"].is_string());
    assert!(replicas.iter().all(|replica| signer(replica) == first && status(replica)["stage"] == "distributing"));
    drop(waiting);
    let changed = |replica: &Discovery| signer(replica) != first;
    until("another root that signs", || replicas.iter().all(changed).then_some(()));
    assert_eq!(signer(&replicas[0]), signer(&replicas[1]));
    assert!(replicas.iter().all(|replica| remembers(replica, &first)));
    let secret = cluster.get("secret", HOME, OWN).expect("the Secret");
    assert!(secret["data"]["ca-next-key.pem"].is_null() && !is_awaited(cluster, "istiod"));
    until("what is remembered", || cluster.get("secret", HOME, FORMER).map(drop));
    for replica in &replicas {
        assert!(!replica.output().contains("PRIVATE KEY"), "keys are not logged");
    }
    replicas.into_iter().for_each(Discovery::kill);
    let later = start(cluster, "istiod-c");
    assert!(remembers(&later, &first), "{}", status(&later));
    drop(later);
    for name in [OWN, FORMER] {
        cluster.ctl(&["delete", "secret", name, "-n", HOME]);
    }
}

pub fn revocations(cluster: &Kubernetes) {
    const MAP: &str = "istio-ca-crl";
    cluster.namespace("revocations");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "plugged");
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root");
    let now = SystemTime::now();
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_secs(3600)).into(),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&root).expect("a list").pem().expect("PEM");
    let plug = |list: &str| {
        let files = [
            ("ca-cert.pem", root.pem()),
            ("ca-key.pem", root.key().serialize_pem()),
            ("root-cert.pem", root.pem()),
            ("cert-chain.pem", root.pem()),
            ("ca-crl.pem", list.to_owned()),
        ];
        let data: serde_json::Map<String, Value> =
            files.into_iter().map(|(name, text)| (name.to_owned(), STANDARD.encode(text).into())).collect();
        let metadata = json!({ "name": "cacerts", "namespace": HOME });
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data }).to_string());
    };
    let lists = || {
        let map = cluster.get("configmap", "revocations", MAP)?;
        map["data"]["ca-crl.pem"].as_str().map(|text| text.replace("\r\n", "\n"))
    };
    plug(&list);
    let discovery = Discovery::start(cluster, &[]);
    let list = list.replace("\r\n", "\n");
    until("the lists", || lists().filter(|found| *found == list));
    plug("");
    until("no lists", || lists().filter(String::is_empty));
    drop(discovery);
    cluster.ctl(&["delete", "secret", "cacerts", "-n", HOME]);
    let _ = cluster.try_ctl(&["delete", "secret", FORMER, "-n", HOME], "");
}
