use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use std::io::{Read, Write};

pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn identity(&self, uri: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(self.0.pem().as_bytes(), &[]).unwrap()
    }
}

fn only(uri: &'static str) -> Vec<SanMatcher> {
    vec![Arc::new(move |san| *san == San::Uri(uri))]
}

/// Handshakes over a socket pair and returns what the server learned of the client.
pub(crate) fn handshake(server: &ServerTls, client: &ClientTls) -> Result<PeerInfo, String> {
    handshake_by(server, client, client.config())
}

/// The same by another configuration of the client.
pub(crate) fn handshake_by(
    server: &ServerTls,
    client: &ClientTls,
    config: Arc<rustls::ClientConfig>,
) -> Result<PeerInfo, String> {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let server = server.clone();
    let serving = std::thread::spawn(move || {
        let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(server.config()).unwrap(), far);
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|e| e.to_string())?;
        stream.write_all(&byte).map_err(|e| e.to_string())?;
        PeerInfo::of(&stream.conn).ok_or_else(|| "no client certificate".to_owned())
    });
    let connection = rustls::ClientConnection::new(config, client.server_name()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, near);
    let client_side = stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).map_err(|e| e.to_string());
    drop(stream);
    let server_side = serving.join().unwrap();
    client_side.and(server_side)
}

pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

pub(crate) fn pair(
    server_slot: Arc<CertSlot>,
    trust: Arc<TrustSlot>,
    client_slot: Arc<CertSlot>,
) -> (ServerTls, ClientTls) {
    let server = ServerTls::new(ServerOptions {
        certificates: vec![server_slot],
        validation: Some(Validation { anchors: trust.clone(), ..Validation::default() }),
        require_client_certificate: true,
        ..ServerOptions::default()
    });
    let client = ClientTls::new(ClientOptions {
        certificate: Some(client_slot),
        validation: Some(Validation { anchors: trust, sans: only(SERVER), ..Validation::default() }),
        sni: Some("outbound_.80_._.server.default.svc.cluster.local".to_owned()),
        ..ClientOptions::default()
    });
    (server.unwrap(), client.unwrap())
}

#[test]
fn mutual_tls_tells_the_server_who_the_client_is() {
    let ca = Authority::new("root");
    let trust = TrustSlot::new(ca.anchors());
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), trust, CertSlot::new(ca.identity(CLIENT)));
    let peer = handshake(&server, &client).unwrap();
    assert_eq!(peer.spiffe(), Some(CLIENT));
    assert_eq!(peer.sha256_hex().len(), 64);
}

#[test]
fn a_server_of_another_name_is_refused() {
    let ca = Authority::new("root");
    let trust = TrustSlot::new(ca.anchors());
    let (server, client) = pair(
        CertSlot::new(ca.identity("spiffe://cluster.local/ns/other/sa/server")),
        trust,
        CertSlot::new(ca.identity(CLIENT)),
    );
    assert!(handshake(&server, &client).is_err());
}

#[test]
fn a_client_of_another_root_is_refused() {
    let (ca, stranger) = (Authority::new("root"), Authority::new("stranger"));
    let trust = TrustSlot::new(ca.anchors());
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), trust, CertSlot::new(stranger.identity(CLIENT)));
    assert!(handshake(&server, &client).is_err());
}

#[test]
fn a_client_without_certificate_is_refused_where_one_is_required() {
    let ca = Authority::new("root");
    let trust = TrustSlot::new(ca.anchors());
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), trust, CertSlot::empty());
    assert!(handshake(&server, &client).is_err());
}

#[test]
fn who_must_be_listed_must_show_a_certificate() {
    let ca = Authority::new("root");
    let server = |sans, accept_untrusted| {
        let anchors = TrustSlot::new(ca.anchors());
        ServerTls::new(ServerOptions {
            certificates: vec![CertSlot::new(ca.identity(SERVER))],
            validation: Some(Validation { anchors, sans, accept_untrusted, ..Validation::default() }),
            ..ServerOptions::default()
        })
        .unwrap()
    };
    let stranger = ClientTls::new(ClientOptions::default()).unwrap();
    let told = |server: ServerTls| handshake(&server, &stranger).unwrap_err();
    assert_eq!(told(server(Vec::new(), false)), "no client certificate", "let in");
    assert_eq!(told(server(only(CLIENT), true)), "no client certificate", "let in");
    assert_ne!(told(server(only(CLIENT), false)), "no client certificate", "refused");
}

#[test]
fn the_local_certificate_is_that_of_the_name_asked_for() {
    let ca = Authority::new("root");
    let identity = |dns: &str, uri: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let leaf = params.signed_by(&key, &ca.0).unwrap();
        CertSlot::new(Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap())
    };
    let certificates = vec![identity("a.example", CLIENT), identity("*.b.example", SERVER)];
    let server = ServerTls::new(ServerOptions { certificates, ..ServerOptions::default() }).unwrap();
    let uris = |name| server.local(name).map(|identity| identity.info().uri_sans.join(","));
    assert_eq!(uris(Some("x.b.example")).as_deref(), Some(SERVER));
    assert_eq!(uris(Some("elsewhere")).as_deref(), Some(CLIENT));
    assert_eq!(uris(None).as_deref(), Some(CLIENT));
}

#[test]
fn rotation_in_the_slot_serves_the_next_handshake() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let trust = TrustSlot::new(old.anchors());
    let (server_slot, client_slot) = (CertSlot::new(old.identity(SERVER)), CertSlot::new(old.identity(CLIENT)));
    let (server, client) = pair(server_slot.clone(), trust.clone(), client_slot.clone());
    handshake(&server, &client).unwrap();
    trust.set(new.anchors());
    server_slot.set(new.identity(SERVER));
    client_slot.set(new.identity(CLIENT));
    // A resumed session would carry the old identity: a fresh context shows what the slots give.
    let (server, client) = pair(server_slot, trust, client_slot);
    handshake(&server, &client).unwrap();
}

#[test]
fn a_server_that_is_to_be_named_by_sni_is_refused_under_another_name() {
    let ca = Authority::new("root");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["right.example".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &ca.0).unwrap();
    let identity = Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let server = ServerTls::new(ServerOptions {
        certificates: vec![CertSlot::new(identity)],
        validation: Some(Validation { anchors: TrustSlot::new(ca.anchors()), ..Validation::default() }),
        ..ServerOptions::default()
    })
    .unwrap();
    let client = |sni: &str| {
        let anchors = TrustSlot::new(ca.anchors());
        ClientTls::new(ClientOptions {
            certificate: Some(CertSlot::new(ca.identity(CLIENT))),
            validation: Some(Validation { anchors, server_name: true, ..Validation::default() }),
            sni: Some(sni.to_owned()),
            ..ClientOptions::default()
        })
        .unwrap()
    };
    handshake(&server, &client("right.example")).unwrap();
    assert!(handshake(&server, &client("wrong.example")).is_err());
}

#[test]
fn an_empty_trust_slot_verifies_nobody() {
    let ca = Authority::new("root");
    let (server, client) =
        pair(CertSlot::new(ca.identity(SERVER)), TrustSlot::empty(), CertSlot::new(ca.identity(CLIENT)));
    assert!(handshake(&server, &client).is_err());
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Authority::new("root");
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().signed_by(&key, &ca.0).unwrap();
    let other = KeyPair::generate().unwrap();
    let result = Identity::from_pem(leaf.pem().as_bytes(), other.serialize_pem().as_bytes());
    assert!(matches!(result, Err(CertError::Mismatch)));
}

#[test]
fn debug_output_shows_no_key() {
    let ca = Authority::new("root");
    let text = format!("{:?}", CertSlot::new(ca.identity(SERVER)));
    assert!(text.contains(SERVER) && !text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn spiffe_ids_parse_strictly() {
    let good = "spiffe://cluster.local/ns/default/sa/reviews";
    assert_eq!(good.parse::<SpiffeId>().unwrap().to_string(), good);
    for bad in [
        "",
        "http://cluster.local/ns/a/sa/b",
        "spiffe://cluster.local/ns/a/sa/",
        "spiffe://cluster.local/ns/a/sa/b/",
        "spiffe://cluster.local/ns/../sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://Cluster.Local/ns/a/sa/b",
        "spiffe://cluster.local/sa/b/ns/a",
        "spiffe://cluster.local/ns/a%2Fb/sa/c",
    ] {
        assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
    }
}

#[test]
fn unknown_cipher_suites_are_named() {
    let options = ServerOptions { cipher_suites: vec!["RC4-MD5".to_owned()], ..ServerOptions::default() };
    assert!(matches!(ServerTls::new(options), Err(CertError::CipherSuite(name)) if name == "RC4-MD5"));
}

#[test]
fn a_leaf_may_be_pinned_by_itself_or_by_its_key() {
    let (ca, stranger) = (Authority::new("root"), Authority::new("stranger"));
    let (own, other) = (ca.identity(CLIENT), ca.identity(CLIENT));
    let told = PeerInfo::from_certificate(&own.chain()[0]).unwrap();
    let (certificate, key) = (told.sha256_hex(), told.key_sha256_hex().unwrap());
    let (own, other) = (CertSlot::new(own), CertSlot::new(other));
    let foreign = CertSlot::new(stranger.identity(CLIENT));
    let takes = |client: &Arc<CertSlot>, certificate_hashes: &[&str], key_hashes: &[&str], unanchored: bool| {
        let list = |hashes: &[&str]| hashes.iter().map(|hash| (*hash).to_owned()).collect();
        let validation = Validation {
            anchors: if unanchored { TrustSlot::empty() } else { TrustSlot::new(ca.anchors()) },
            unanchored,
            certificate_hashes: list(certificate_hashes),
            key_hashes: list(key_hashes),
            ..Validation::default()
        };
        let server = ServerTls::new(ServerOptions {
            certificates: vec![CertSlot::new(ca.identity(SERVER))],
            validation: Some(validation),
            ..ServerOptions::default()
        });
        let client = ClientTls::new(ClientOptions { certificate: Some(client.clone()), ..ClientOptions::default() });
        handshake(&server.unwrap(), &client.unwrap()).is_ok()
    };
    let wrong = "00".repeat(32);
    assert!(takes(&own, &[&certificate], &[], false));
    assert!(takes(&own, &[], &[&key], false));
    assert!(takes(&own, &[&wrong], &[&key], false), "one pin of either kind is enough");
    assert!(takes(&own, &[&wrong, &certificate], &[&wrong], false));
    assert!(!takes(&own, &[&wrong], &[&wrong], false));
    assert!(!takes(&own, &[&key], &[&certificate], false), "each kind is compared with its own");
    assert!(!takes(&other, &[&certificate], &[&key], false));
    assert!(takes(&own, &[], &[&key], true), "without anchors the pin alone counts");
    assert!(!takes(&foreign, &[], &[&key], true));
}

#[test]
fn a_handshake_uses_a_curve_of_the_list() {
    let ca = Authority::new("root");
    let negotiated = |server: &[Curve], client: &[Curve]| {
        let certificates = vec![CertSlot::new(ca.identity(SERVER))];
        let server = ServerOptions { certificates, curves: server.to_vec(), ..ServerOptions::default() };
        let client = ClientTls::new(ClientOptions { curves: client.to_vec(), ..ClientOptions::default() }).unwrap();
        let mut server = rustls::ServerConnection::new(ServerTls::new(server).unwrap().config()).unwrap();
        let mut client = rustls::ClientConnection::new(client.config(), client.server_name()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().ok()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets().ok()?;
        }
        server.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
    };
    assert_eq!(negotiated(&[Curve::P384], &[]).as_deref(), Some("secp384r1"));
    assert_eq!(negotiated(&[], &[Curve::P256]).as_deref(), Some("secp256r1"));
    assert_eq!(negotiated(&[Curve::X25519MlKem768], &[]).as_deref(), Some("X25519MLKEM768"));
    assert_eq!(negotiated(&[Curve::X25519, Curve::P256], &[Curve::P256]).as_deref(), Some("secp256r1"));
    assert_eq!(negotiated(&[Curve::P384], &[Curve::P256]), None, "none in common");
}

#[test]
fn a_client_whose_protocols_are_none_of_ours_gets_no_protocol_and_is_served() {
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = ServerTls::new(ServerOptions { alpn: alpn.clone(), ..ServerOptions::default() }).unwrap();
    let chosen = |offered: &[&[u8]]| {
        let offered: Vec<_> = offered.iter().map(|name| name.to_vec()).collect();
        server.config_for(&offered).alpn_protocols.clone()
    };
    assert_eq!(chosen(&[]), alpn);
    assert_eq!(chosen(&[b"istio", b"h2"]), alpn);
    assert_eq!(chosen(&[b"istio-peer-exchange", b"istio"]), Vec::<Vec<u8>>::new());
}

#[test]
fn an_operator_sees_what_is_presented_and_what_is_trusted() {
    let ca = Authority::new("root");
    let trust = TrustSlot::new(ca.anchors());
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), trust, CertSlot::new(ca.identity(CLIENT)));
    let presented: Vec<_> = server.certificates().map(|current| current.unwrap().info().uri_sans.clone()).collect();
    assert_eq!(presented, [[SERVER]]);
    for trust in [server.trust(), client.trust()] {
        let roots = trust.unwrap().roots();
        assert_eq!(roots.iter().map(|root| root.subject.as_str()).collect::<Vec<_>>(), ["CN=root"]);
    }
}

#[test]
fn the_chain_that_a_peer_showed_is_known_leaf_first() {
    let ca = Authority::new("root");
    let trust = TrustSlot::new(ca.anchors());
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().signed_by(&key, &ca.0).unwrap();
    let chain = [leaf.pem(), ca.0.pem()].concat();
    let client = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), trust, CertSlot::new(client));
    let peer = handshake(&server, &client).unwrap();
    let (from, until) = peer.validity().unwrap();
    assert!(from < until);
    let root = PeerInfo::from_certificate(ca.0.der()).unwrap();
    assert_eq!(peer.chain_sha256_hex(), [peer.sha256_hex(), root.sha256_hex()]);
    assert_eq!(peer.chain_serials_hex(), [peer.serial_hex.clone(), root.serial_hex]);
}

#[test]
fn serial_numbers_are_printed_without_the_byte_of_their_sign() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.serial_number = Some(vec![0xb7, 0x01].into());
    let leaf = params.self_signed(&key).unwrap();
    assert_eq!(PeerInfo::from_certificate(leaf.der()).unwrap().serial_hex, "b701");
}

/// What a context with this policy offers of suites and groups, by a handshake with one that has none.
fn agreed(policy: Option<meltemi_base::Compliance>, curves: &[Curve], suites: &[&str]) -> (String, String) {
    let ca = Authority::new("root");
    let server = ServerTls::new(ServerOptions {
        certificates: vec![CertSlot::new(ca.identity(SERVER))],
        compliance: policy,
        curves: curves.to_vec(),
        cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
        ..ServerOptions::default()
    });
    // With every group, whichever the provider offers by itself.
    let groups = vec![Curve::X25519MlKem768, Curve::X25519, Curve::P256, Curve::P384];
    let client = ClientTls::new(ClientOptions { curves: groups, ..ClientOptions::default() }).unwrap();
    suite_and_group(server.unwrap(), &client)
}

/// The suite and the group that a handshake agrees on.
fn suite_and_group(server: ServerTls, client: &ClientTls) -> (String, String) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || {
        let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(server.config()).unwrap(), far);
        stream.read_exact(&mut [0]).unwrap();
        let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
        (format!("{:?}", stream.conn.negotiated_cipher_suite().unwrap().suite()), format!("{group:?}"))
    });
    let connection = rustls::ClientConnection::new(client.config(), client.server_name()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, near);
    stream.write_all(b"x").unwrap();
    serving.join().unwrap()
}

#[test]
fn a_policy_goes_over_all_other_settings() {
    use meltemi_base::Compliance::{Fips140_2, Fips140_3, PostQuantum};
    for (policy, curves, suites, group, version) in [
        (Fips140_2, &[][..], &[][..], "secp256r1", "TLS_ECDHE_ECDSA_WITH_AES"),
        (Fips140_2, &[Curve::X25519], &["ECDHE-ECDSA-CHACHA20-POLY1305"], "secp256r1", "TLS_ECDHE_ECDSA_WITH_AES"),
        (Fips140_3, &[Curve::X25519, Curve::P384], &[], "secp384r1", "TLS13_AES"),
        (PostQuantum, &[Curve::P256], &[], "X25519MLKEM768", "TLS13_AES"),
    ] {
        let (suite, chosen) = agreed(Some(policy), curves, suites);
        assert!(suite.starts_with(version) && chosen == group, "{policy:?} {curves:?}: {suite} {chosen}");
    }
    assert_eq!(agreed(None, &[Curve::X25519], &[]).1, "X25519");
}

#[test]
fn suites_are_taken_in_the_order_of_the_list_and_by_default_the_cheaper_first() {
    let suite = |max_version, suites: &[&str]| {
        let ca = Authority::new("root");
        let server = ServerTls::new(ServerOptions {
            certificates: vec![CertSlot::new(ca.identity(SERVER))],
            max_version,
            cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            ..ServerOptions::default()
        });
        let client = ClientTls::new(ClientOptions::default()).unwrap();
        suite_and_group(server.unwrap(), &client).0
    };
    let (small, large) = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384");
    for (version, list, expected) in [
        (TlsVersion::Tls13, &[][..], "TLS13_AES_128_GCM_SHA256"),
        (TlsVersion::Tls13, &[large], "TLS13_AES_128_GCM_SHA256"),
        (TlsVersion::Tls12, &[], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (TlsVersion::Tls12, &[large, small], "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (TlsVersion::Tls12, &[small, large], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ] {
        assert_eq!(suite(version, list), expected, "{version:?} {list:?}");
    }
}

#[test]
fn what_a_policy_leaves_nothing_of_is_refused() {
    let policy = Some(meltemi_base::Compliance::Fips140_2);
    let newest = ServerOptions { min_version: TlsVersion::Tls13, compliance: policy, ..ServerOptions::default() };
    assert!(ServerTls::new(newest).is_err());
}
