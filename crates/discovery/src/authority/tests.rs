use super::*;
use std::time::Duration;

use meltemi_ca::AuthorityOptions;
use meltemi_model::{Node, NodeDescription};
use meltemi_push::{Peer, TypeStatus};
use meltemi_xds::Variant;
use meltemi_xds::types::{CLUSTER, LISTENER};

fn client(name: &str, types: &[(&str, TypeStatus)]) -> ClientStatus {
    stream(name, types, "false")
}

fn agent(name: &str, types: &[(&str, TypeStatus)]) -> ClientStatus {
    stream(name, types, "true")
}

fn stream(name: &str, types: &[(&str, TypeStatus)], agents: &str) -> ClientStatus {
    let id = format!("sidecar~10.0.0.1~{name}.default~default.svc.cluster.local");
    let metadata = [("AGENT_STREAM".to_owned(), agents.into())].into_iter().collect();
    let node = Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap();
    let peer = Peer { node: Arc::new(node), variant: Variant::Delta, address: String::new(), identity: None };
    let types = types.iter().map(|(type_url, status)| (Arc::from(*type_url), status.clone())).collect();
    ClientStatus { peer, connected_for: Duration::ZERO, types }
}

fn answered() -> TypeStatus {
    TypeStatus { sent_nonce: "1".to_owned(), acked_nonce: "1".to_owned(), ..TypeStatus::default() }
}

fn mesh(change: impl FnOnce(&mut MeshConfig)) -> Shared<MeshConfig> {
    let mut mesh = MeshConfig::default();
    change(&mut mesh);
    Shared::new(mesh)
}

fn self_signed() -> Authority {
    Authority::self_signed(AuthorityOptions::new("cluster.local".parse().unwrap())).unwrap()
}

#[test]
fn a_proxy_holds_the_bundle_once_its_agent_has_acknowledged_what_was_sent_last() {
    let (sent, rejected) = (
        TypeStatus { sent_nonce: "2".to_owned(), outstanding: true, ..answered() },
        TypeStatus { rejection: Some("no".to_owned()), ..answered() },
    );
    for (name, streams, connected, holding) in [
        ("nobody", vec![], 0, 0),
        ("a proxy without an agent", vec![client("a", &[(CLUSTER, answered())])], 1, 0),
        ("its agent too", vec![client("a", &[(CLUSTER, answered())]), agent("a", &[(SECRET, answered())])], 1, 1),
        ("sent and not answered", vec![agent("a", &[(SECRET, sent)])], 1, 0),
        ("never sent", vec![agent("a", &[(SECRET, TypeStatus::default())])], 1, 0),
        ("rejected", vec![agent("a", &[(SECRET, rejected)])], 1, 0),
        ("a gateway's own secrets", vec![client("a", &[(CLUSTER, answered()), (SECRET, answered())])], 1, 0),
        ("one of two", vec![agent("a", &[(SECRET, answered())]), client("b", &[(LISTENER, answered())])], 2, 1),
    ] {
        assert_eq!(progress(&streams), Progress { connected, holding }, "{name}");
    }
}

#[test]
fn roots_of_the_mesh_configuration_are_sent_if_they_are_for_our_trust_domain() {
    let (own, other) = (self_signed(), self_signed());
    let with = |domains: &[&str], signers: &[&str], pem: &str| {
        mesh(|mesh| {
            mesh.trust_domain_aliases = vec!["old.example".into()];
            mesh.ca_certificates = vec![meltemi_config::mesh::CertificateData {
                pem: Some(pem.into()),
                cert_signers: signers.iter().map(|signer| (*signer).into()).collect(),
                trust_domains: domains.iter().map(|domain| (*domain).into()).collect(),
                ..Default::default()
            }];
        })
    };
    let pem = other.root_pem();
    for (domains, signers, pem, expected) in [
        (&[][..], &[][..], &*pem, true),
        (&["cluster.local"], &[], &pem, true),
        (&["else.example", "old.example"], &[], &pem, true),
        (&["else.example"], &[], &pem, false),
        (&[], &["signer.example/one"], &pem, false),
        (&[], &[], "garbage", false),
    ] {
        let roots = federated(&with(domains, signers, pem));
        assert_eq!(!roots.is_empty(), expected, "{domains:?} {signers:?}");
    }
    let secrets = RootSecret::new(Arc::new(own));
    let plain = secrets.resource(&mesh(|_| {}));
    assert_eq!(plain.version, secrets.resource(&mesh(|_| {})).version);
    let more = secrets.resource(&with(&[], &[], &pem));
    assert_ne!(plain.version, more.version);
    let secret: Secret = more.body.unpack().unwrap();
    let Some(Type::ValidationContext(context)) = secret.r#type else { panic!("no validation context") };
    let Some(Specifier::InlineBytes(roots)) = context.trusted_ca.and_then(|source| source.specifier) else {
        panic!("no roots")
    };
    assert_eq!(std::str::from_utf8(&roots).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
}
