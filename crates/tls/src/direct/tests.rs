use super::*;
use crate::tests::{Authority, CLIENT, SERVER, handshake, handshake_by, pair};
use crate::{
    CertSlot, ClientOptions, ClientTls, Identity, ServerOptions, ServerTls, TrustAnchors, TrustSlot, Validation,
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SigningKey};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u16::try_from(content.len()).unwrap().to_be_bytes() {
        [0, short] if short < 0x80 => out.push(short),
        [high, low] => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(content);
    out
}

/// A leaf of version 1: what rcgen makes without its version and its extensions, signed anew.
fn version_1(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "old");
    change(&mut params);
    let leaf = params.signed_by(&key, &authority.0).unwrap();
    let (_, outer) = Any::from_der(leaf.der()).unwrap();
    let (after_signed, signed) = Any::from_der(outer.data).unwrap();
    let (after_algorithm, _) = Any::from_der(after_signed).unwrap();
    let algorithm = &after_signed[..after_signed.len() - after_algorithm.len()];
    let (mut rest, mut kept) = (signed.data, Vec::new());
    while !rest.is_empty() {
        let (next, part) = Any::from_der(rest).unwrap();
        // Context tags 0 and 3: the version and the extensions.
        if part.header.is_universal() {
            kept.extend_from_slice(&rest[..rest.len() - next.len()]);
        }
        rest = next;
    }
    let signed = element(0x30, &kept);
    let signature = [&[0][..], &authority.0.key().sign(&signed).unwrap()].concat();
    let whole = element(0x30, &[&signed[..], algorithm, &element(0x03, &signature)].concat());
    (whole.into(), key)
}

fn identity((leaf, key): (CertificateDer<'static>, KeyPair)) -> Identity {
    Identity::new(vec![leaf], PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
}

fn now() -> UnixTime {
    UnixTime::now()
}

#[test]
fn a_key_of_a_version_1_certificate_is_compared_all_the_same() {
    let ca = Authority::new("root");
    let (leaf, key) = version_1(&ca, |_| {});
    assert_eq!(parse(&leaf).unwrap().version(), X509Version::V1);
    let other = PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
    assert!(matches!(Identity::new(vec![leaf.clone()], other), Err(crate::CertError::Mismatch)));
    identity((leaf, key));
}

#[test]
fn version_1_leaves_of_both_sides_are_verified_by_the_anchor() {
    let ca = Authority::new("root");
    for version in [crate::TlsVersion::Tls12, crate::TlsVersion::Tls13] {
        let validation = || Some(Validation { anchors: TrustSlot::new(ca.anchors()), ..Validation::default() });
        let server = ServerTls::new(ServerOptions {
            certificates: vec![CertSlot::new(identity(version_1(&ca, |_| {})))],
            validation: validation(),
            require_client_certificate: true,
            ..ServerOptions::default()
        });
        let client = ClientTls::new(ClientOptions {
            certificate: Some(CertSlot::new(identity(version_1(&ca, |_| {})))),
            validation: validation(),
            max_version: version,
            ..ClientOptions::default()
        });
        assert_eq!(handshake(&server.unwrap(), &client.unwrap()).unwrap().subject, "CN=old", "{version:?}");
    }
}

/// Shows a certificate that is another's.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn who_has_not_the_key_of_a_version_1_leaf_is_refused() {
    let ca = Authority::new("root");
    for version in [crate::TlsVersion::Tls12, crate::TlsVersion::Tls13] {
        let options = ClientOptions { max_version: version, ..ClientOptions::default() };
        let client = ClientTls::new(options).unwrap();
        let server = ServerTls::new(ServerOptions {
            certificates: vec![CertSlot::new(ca.identity(SERVER))],
            validation: Some(Validation { anchors: TrustSlot::new(ca.anchors()), ..Validation::default() }),
            ..ServerOptions::default()
        })
        .unwrap();
        let (leaf, key) = version_1(&ca, |_| {});
        let with_key_of = |key: &KeyPair| {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let key = crate::provider().key_provider.load_private_key(key).unwrap();
            let mut config = (*client.config()).clone();
            config.client_auth_cert_resolver = Arc::new(Impostor(Arc::new(CertifiedKey::new(vec![leaf.clone()], key))));
            handshake_by(&server, &client, Arc::new(config))
        };
        assert!(with_key_of(&key).is_ok(), "{version:?}");
        assert!(with_key_of(&KeyPair::generate().unwrap()).is_err(), "{version:?}");
    }
}

#[test]
fn a_version_1_leaf_of_a_stranger_or_out_of_date_is_refused() {
    let (ca, namesake) = (Authority::new("root"), Authority::new("root"));
    let anchors = [ca.0.der().clone()];
    let check = |leaf: &CertificateDer<'_>, expected: Result<(), CertificateError>| {
        assert_eq!(vouched(leaf, &anchors, now(), Peer::Client), expected.map_err(Error::from));
    };
    check(&version_1(&ca, |_| {}).0, Ok(()));
    check(&version_1(&namesake, |_| {}).0, Err(CertificateError::UnknownIssuer));
    let past = (SystemTime::now() - Duration::from_secs(86_400)).into();
    check(&version_1(&ca, |params| params.not_after = past).0, Err(CertificateError::Expired));
    let future = (SystemTime::now() + Duration::from_secs(86_400)).into();
    check(&version_1(&ca, |params| params.not_before = future).0, Err(CertificateError::Expired));
    let mut forged = version_1(&ca, |_| {}).0.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    check(&forged.into(), Err(CertificateError::UnknownIssuer));
}

#[test]
fn a_version_3_leaf_is_left_to_webpki() {
    let ca = Authority::new("root");
    let leaf = ca.identity(CLIENT).chain()[0].clone();
    let refused = Err(CertificateError::UnknownIssuer.into());
    assert_eq!(vouched(&leaf, &[ca.0.der().clone()], now(), Peer::Client), refused);
}

/// A certificate that signs itself, as `openssl req -x509` makes it.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (String, Identity) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["own.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    let leaf = params.self_signed(&key).unwrap();
    let identity = Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    (leaf.pem(), identity)
}

fn meets(identity: Identity, trusted: &str, name: &str) -> Result<(), String> {
    let server =
        ServerTls::new(ServerOptions { certificates: vec![CertSlot::new(identity)], ..ServerOptions::default() });
    let anchors = TrustSlot::new(TrustAnchors::from_pem(trusted.as_bytes(), &[]).unwrap());
    let client = ClientTls::new(ClientOptions {
        validation: Some(Validation { anchors, server_name: true, ..Validation::default() }),
        sni: Some(name.to_owned()),
        ..ClientOptions::default()
    });
    match handshake(&server.unwrap(), &client.unwrap()) {
        Err(told) if told == "no client certificate" => Ok(()),
        Err(other) => Err(other),
        Ok(_) => Ok(()),
    }
}

#[test]
fn a_server_that_is_its_own_root_is_let_in_under_its_name_and_in_its_time() {
    let (pem, identity) = self_signed(|_| {});
    meets(identity.clone(), &pem, "own.example").unwrap();
    assert!(meets(identity.clone(), &pem, "other.example").is_err(), "names are compared");
    let (other, _) = self_signed(|_| {});
    assert!(meets(identity, &other, "own.example").is_err(), "another root");
    let past = (SystemTime::now() - Duration::from_secs(86_400)).into();
    let (pem, identity) = self_signed(|params| params.not_after = past);
    assert!(meets(identity, &pem, "own.example").is_err(), "out of date");
    let (pem, identity) = self_signed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert!(meets(identity, &pem, "own.example").is_err(), "for clients only");
}

#[test]
fn with_a_revocation_list_only_webpki_decides() {
    let ca = Authority::new("root");
    let list = rcgen::CertificateRevocationListParams {
        this_update: SystemTime::now().into(),
        next_update: (SystemTime::now() + Duration::from_secs(86_400)).into(),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&ca.0).unwrap().pem().unwrap();
    let anchors = TrustAnchors::from_pem(ca.0.pem().as_bytes(), list.as_bytes()).unwrap();
    let client = CertSlot::new(identity(version_1(&ca, |_| {})));
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), TrustSlot::new(anchors), client);
    assert!(handshake(&server, &client).is_err());
}
