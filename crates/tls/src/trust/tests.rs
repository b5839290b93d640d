use super::*;
use crate::CertSlot;
use crate::tests::{Authority, CLIENT, SERVER, handshake, pair};
use rcgen::{CertificateParams, KeyPair, SanType, SerialNumber};
use std::time::Duration;

const FOREIGN: &str = "spiffe://foreign.example/ns/default/sa/server";
const SERIAL: u64 = 7;

/// An identity with these names and the serial number [`SERIAL`].
fn identity(ca: &Authority, uris: &[&str]) -> crate::Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.serial_number = Some(SerialNumber::from(SERIAL));
    let leaf = params.signed_by(&key, &ca.0).unwrap();
    crate::Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

pub(crate) fn revocations(ca: &Authority, serial: u64) -> String {
    revocations_until(ca, serial, SystemTime::now() + Duration::from_secs(3600))
}

fn revocations_until(ca: &Authority, serial: u64, end: SystemTime) -> String {
    let now = end - Duration::from_secs(7200);
    let revoked = rcgen::RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: now.into(),
        reason_code: None,
        invalidity_date: None,
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: now.into(),
        next_update: end.into(),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&ca.0).unwrap().pem().unwrap()
}

#[test]
fn what_a_list_revokes_is_refused_as_client_and_as_server() {
    let ca = Authority::new("root");
    for (serial, taken) in [(SERIAL, false), (SERIAL + 1, true)] {
        let list = revocations(&ca, serial);
        let anchors = || TrustAnchors::from_pem(ca.0.pem().as_bytes(), list.as_bytes()).unwrap();
        for (server, client) in
            [(identity(&ca, &[SERVER]), ca.identity(CLIENT)), (ca.identity(SERVER), identity(&ca, &[CLIENT]))]
        {
            let (server, client) = pair(CertSlot::new(server), TrustSlot::new(anchors()), CertSlot::new(client));
            let met = handshake(&server, &client);
            assert_eq!(met.is_ok(), taken, "{serial}: {met:?}");
        }
    }
}

#[test]
fn beside_lists_an_authority_without_one_that_is_in_force_lets_nobody_in() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let ended = revocations_until(&ca, SERIAL, SystemTime::now() - Duration::from_secs(60));
    for (name, list, taken) in [
        ("of the authority", revocations(&ca, SERIAL), true),
        ("of another", revocations(&other, SERIAL), false),
        ("that has ended", ended, false),
    ] {
        let anchors = TrustAnchors::from_pem((ca.0.pem() + &other.0.pem()).as_bytes(), list.as_bytes()).unwrap();
        let identity = ca.identity(SERVER);
        let leaf = &identity.chain()[0];
        let now = UnixTime::now();
        assert_eq!(anchors.verify_client(leaf, &[], now).is_ok(), taken, "a list {name}, as a client");
        assert_eq!(anchors.verify_server(leaf, &[], now).is_ok(), taken, "a list {name}, as a server");
    }
}

#[test]
fn the_roots_of_a_trust_domain_vouch_for_it_alone() {
    let (own, foreign) = (Authority::new("own"), Authority::new("foreign"));
    let anchors = own.anchors().federate(&"foreign.example".parse().unwrap(), foreign.anchors());
    let now = UnixTime::now();
    for (name, identity, taken) in [
        ("own by own", own.identity(SERVER), true),
        ("foreign by foreign", foreign.identity(FOREIGN), true),
        ("own by foreign", foreign.identity(SERVER), false),
        ("foreign by own", own.identity(FOREIGN), false),
        ("a third by foreign", foreign.identity("spiffe://third.example/ns/a/sa/b"), false),
        ("both by foreign", self::identity(&foreign, &[FOREIGN, SERVER]), false),
        ("both by own", self::identity(&own, &[SERVER, FOREIGN]), false),
    ] {
        let leaf = &identity.chain()[0];
        assert_eq!(anchors.verify_client(leaf, &[], now).is_ok(), taken, "{name} as a client");
        assert_eq!(anchors.verify_server(leaf, &[], now).is_ok(), taken, "{name} as a server");
    }
}

#[test]
fn a_chain_is_verified_at_the_time_that_is_asked_for() {
    let ca = Authority::new("root");
    let key = KeyPair::generate().unwrap();
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_after = (now + Duration::from_secs(60)).into();
    let leaf = params.signed_by(&key, &ca.0).unwrap().pem();
    ca.anchors().verify(leaf.as_bytes(), now).unwrap();
    assert!(ca.anchors().verify(leaf.as_bytes(), now + Duration::from_secs(120)).is_err());
    assert!(Authority::new("other").anchors().verify(leaf.as_bytes(), now).is_err());
    assert!(ca.anchors().verify(b"", now).is_err());
}

/// A certificate for this URI with what else is said of it.
fn leaf(ca: &Authority, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> crate::Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    change(&mut params);
    let leaf = params.signed_by(&key, &ca.0).unwrap();
    crate::Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

#[test]
fn among_trust_domains_each_peer_is_of_one_and_by_spiffe_s_rules() {
    use rcgen::KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
    let (own, foreign) = (Authority::new("own"), Authority::new("foreign"));
    let domains = [("cluster.local".into(), own.anchors()), ("foreign.example".into(), foreign.anchors())];
    let anchors = TrustAnchors::of_trust_domains(domains).unwrap();
    let now = UnixTime::now();
    let plain = |ca: &Authority, uris: &[&str]| leaf(ca, uris, |_| {});
    for (name, identity, taken) in [
        ("own by own", plain(&own, &[SERVER]), true),
        ("foreign by foreign", plain(&foreign, &[FOREIGN]), true),
        ("own by foreign", plain(&foreign, &[SERVER]), false),
        ("foreign by own", plain(&own, &[FOREIGN]), false),
        ("a third by own", plain(&own, &["spiffe://third.example/ns/a/sa/b"]), false),
        ("nobody", plain(&own, &[]), false),
        ("no path", plain(&own, &["spiffe://cluster.local"]), false),
        ("no domain", plain(&own, &["spiffe:///ns/a"]), false),
        ("another scheme", plain(&own, &["https://cluster.local/ns/a"]), false),
        ("two names", plain(&own, &[SERVER, CLIENT]), false),
        ("no key usage", leaf(&own, &[SERVER], |params| params.key_usages = Vec::new()), false),
        ("signs certificates", leaf(&own, &[SERVER], |params| params.key_usages.push(KeyCertSign)), false),
        ("signs lists", leaf(&own, &[SERVER], |params| params.key_usages = vec![DigitalSignature, CrlSign]), false),
    ] {
        let leaf = &identity.chain()[0];
        assert_eq!(anchors.verify_client(leaf, &[], now).is_ok(), taken, "{name} as a client");
        assert_eq!(anchors.verify_server(leaf, &[], now).is_ok(), taken, "{name} as a server");
    }
    assert!(TrustAnchors::of_trust_domains([]).is_none());
}

#[test]
fn whoever_is_verified_by_trust_domain_must_show_a_certificate() {
    let ca = Authority::new("own");
    let anchors = || TrustAnchors::of_trust_domains([("cluster.local".into(), ca.anchors())]).unwrap();
    for (svids_only, taken) in [(true, false), (false, true)] {
        let server = crate::ServerTls::new(crate::ServerOptions {
            certificates: vec![CertSlot::new(leaf(&ca, &[SERVER], |_| {}))],
            validation: Some(Validation { anchors: TrustSlot::new(anchors()), svids_only, ..Validation::default() }),
            ..crate::ServerOptions::default()
        });
        let met = handshake(&server.unwrap(), &crate::ClientTls::new(crate::ClientOptions::default()).unwrap());
        // Without one the handshake itself succeeds, and there is nobody to know.
        assert_eq!(met.unwrap_err() == "no client certificate", taken, "{svids_only}");
    }
}
