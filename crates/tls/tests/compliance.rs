//! A policy of the whole process, which can be set once: hence a program of its own.

use meltemi_base::Compliance;
use meltemi_tls::{PeerInfo, ServerOptions, ServerTls};

#[test]
fn a_policy_without_tls_1_3_leaves_certificates_and_their_digests() {
    meltemi_tls::comply(Compliance::Fips140_2).unwrap();
    let leaf = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert;
    let peer = PeerInfo::from_certificate(leaf.der()).unwrap();
    assert_eq!(peer.sha256_hex().len(), 64);
    ServerTls::new(ServerOptions::default()).unwrap();
}
