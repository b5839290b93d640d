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

/// A mesh with an alias and one entry of `caCertificates`.
fn federated(domains: &[&str], signers: &[&str], pem: &str) -> Shared<MeshConfig> {
    mesh(|mesh| {
        mesh.trust_domain_aliases = vec!["old.example".into()];
        mesh.ca_certificates = vec![meltemi_config::mesh::CertificateData {
            pem: Some(pem.into()),
            cert_signers: signers.iter().map(|signer| (*signer).into()).collect(),
            trust_domains: domains.iter().map(|domain| (*domain).into()).collect(),
            ..Default::default()
        }];
    })
}

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn each_trust_domain_of_the_mesh_has_its_roots() {
    let pem = self_signed().root_pem();
    for (domains, signers, pem, (own, alias)) in [
        (&[][..], &[][..], &*pem, (2, 2)),
        (&["cluster.local"], &[], &pem, (2, 1)),
        (&["else.example", "old.example"], &[], &pem, (1, 2)),
        (&["else.example"], &[], &pem, (1, 1)),
        (&[], &["signer.example/one"], &pem, (1, 1)),
        (&[], &[], "garbage", (1, 1)),
    ] {
        let roots = by_trust_domain(&self_signed().root_pem(), &federated(domains, signers, pem));
        let count = |domain| certificates(&roots[domain]);
        assert_eq!((count("cluster.local"), count("old.example")), (own, alias), "{domains:?} {signers:?}");
        assert_eq!(roots.len(), 2);
    }
}

fn sent(secrets: &RootSecret, mesh: &Shared<MeshConfig>) -> CertificateValidationContext {
    let secret: Secret = secrets.resource(mesh).body.unpack().unwrap();
    let Some(Type::ValidationContext(context)) = secret.r#type else { panic!("no validation context") };
    context
}

#[test]
fn roots_that_are_the_same_for_all_are_one_list_and_others_go_to_their_trust_domain() {
    let (own, other) = (self_signed(), self_signed().root_pem());
    let secrets = RootSecret::new(Arc::new(own));
    let plain = secrets.resource(&mesh(|_| {}));
    assert_eq!(plain.version, secrets.resource(&mesh(|_| {})).version);
    let (all, alias) = (federated(&[], &[], &other), federated(&["old.example"], &[], &other));
    let versions = [plain.version, secrets.resource(&all).version, secrets.resource(&alias).version];
    assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), 3);
    let list = |context: &CertificateValidationContext| {
        let source = context.trusted_ca.as_ref().and_then(|source| source.specifier.as_ref());
        let Some(Specifier::InlineBytes(roots)) = source else { panic!("no roots") };
        certificates(std::str::from_utf8(roots).unwrap())
    };
    let context = sent(&secrets, &all);
    assert_eq!((list(&context), context.custom_validator_config), (2, None));
    let context = sent(&secrets, &alias);
    assert_eq!(list(&context), 1, "the alias' roots are not ours");
    let validator = context.custom_validator_config.unwrap();
    assert_eq!(validator.name, "envoy.tls.cert_validator.spiffe");
    let config: SpiffeCertValidatorConfig = validator.typed_config.unwrap().unpack().unwrap();
    let count = |domain: &spiffe::TrustDomain| {
        let source = domain.trust_bundle.as_ref().and_then(|source| source.specifier.as_ref());
        let Some(Specifier::InlineString(roots)) = source else { panic!("no roots") };
        (domain.name.clone(), certificates(roots))
    };
    let counts: Vec<_> = config.trust_domains.iter().map(count).collect();
    assert_eq!(counts, [("cluster.local".to_owned(), 1), ("old.example".to_owned(), 2)]);
}
