use super::*;
use crate::signer::CLOCK_SKEW;
use crate::testing::{Ca, der, options, request, write_plugged};
use meltemi_tls::PeerInfo;
use std::fs;

const HOUR: Duration = Duration::from_secs(3600);

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap()
}

#[test]
fn a_certificate_names_the_caller_and_nothing_that_the_request_asked_for() {
    let authority = Authority::self_signed(options()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issued = authority.sign(&request(&key), &id(), None).unwrap();
    let leaf = der(&issued.chain[0]);
    let peer = PeerInfo::from_certificate(&leaf).unwrap();
    assert_eq!(peer.uri_sans, [id().to_string()]);
    assert!(peer.dns_sans.is_empty());
    let (_, certificate) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.der_bytes());
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    // Other implementations of SPIFFE refuse a leaf that leaves it unsaid.
    assert!(!certificate.basic_constraints().unwrap().expect("said").value.ca);
}

#[test]
fn lifetimes_are_those_asked_for_within_the_limit() {
    let mut options = options();
    options.max_ttl = Duration::from_secs(7200);
    let authority = Authority::self_signed(options).unwrap();
    let key = KeyPair::generate().unwrap();
    let lifetime = |ttl| {
        let issued = authority.sign(&request(&key), &id(), ttl).unwrap();
        let leaf = der(&issued.chain[0]);
        let (_, certificate) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let (start, end) = (certificate.validity().not_before, certificate.validity().not_after);
        (end.timestamp() - start.timestamp()) as u64
    };
    let skew = CLOCK_SKEW.as_secs();
    assert!(lifetime(Some(HOUR)).abs_diff(3600 + skew) <= 1);
    assert!(lifetime(None).abs_diff(7200 + skew) <= 1);
    assert!(lifetime(Some(Duration::from_secs(1 << 40))).abs_diff(7200 + skew) <= 1);
}

#[test]
fn a_request_whose_signature_is_broken_is_refused() {
    let authority = Authority::self_signed(options()).unwrap();
    let good = request(&KeyPair::generate().unwrap());
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    lines[last] = lines[last].chars().rev().collect();
    assert!(matches!(authority.sign(&lines.join("\n"), &id(), None), Err(AuthorityError::Request(_))));
    assert!(matches!(authority.sign("", &id(), None), Err(AuthorityError::Request(_))));
}

#[test]
fn a_kept_root_is_the_same_after_a_restart_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::persistent(dir.path(), options()).unwrap();
    let second = Authority::persistent(dir.path(), options()).unwrap();
    assert_eq!(first.root_pem(), second.root_pem());
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(dir.path().join("ca-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_plugged_intermediate_is_part_of_the_chain_and_the_root_is_not() {
    let root = Ca::root("root");
    let intermediate = root.intermediate("intermediate");
    let dir = tempfile::tempdir().unwrap();
    write_plugged(dir.path(), &intermediate, &format!("{}{}", intermediate.pem(), root.pem()), &root.pem());
    let authority = Authority::plugged(dir.path(), options()).unwrap();
    let issued = authority.sign(&request(&KeyPair::generate().unwrap()), &id(), None).unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(der(&issued.chain[1]), der(&intermediate.pem()));
    assert_eq!(der(&issued.root), der(&root.pem()));
}

#[test]
fn files_of_kubernetes_tls_secrets_are_an_authority_too() {
    let root = Ca::root("root");
    let intermediate = root.intermediate("intermediate");
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("tls.crt", intermediate.pem()), ("tls.key", intermediate.key_pem()), ("ca.crt", root.pem())] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    assert!(Authority::is_plugged(dir.path()));
    let authority = Authority::plugged(dir.path(), options()).unwrap();
    let issued = authority.sign(&request(&KeyPair::generate().unwrap()), &id(), None).unwrap();
    assert_eq!(issued.chain.len(), 2);
}

#[test]
fn files_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Authority::plugged(dir.path(), options()).err().unwrap().to_string();
    assert!(error.contains("root-cert.pem"), "{error}");
}

#[test]
fn half_of_a_kept_root_is_an_error_that_names_the_other_half() {
    for (kept, missing) in [("root-cert.pem", "ca-key.pem"), ("ca-key.pem", "root-cert.pem")] {
        let dir = tempfile::tempdir().unwrap();
        Authority::persistent(dir.path(), options()).unwrap();
        fs::remove_file(dir.path().join(missing)).unwrap();
        let error = Authority::persistent(dir.path(), options()).err().unwrap().to_string();
        assert_eq!(error, format!("{missing} is missing beside {kept}"));
        assert!(!dir.path().join(missing).exists());
    }
}

#[test]
fn an_error_says_its_cause_once() {
    use std::error::Error as _;
    let error = Authority::plugged(Path::new("/nowhere"), options()).err().unwrap();
    assert!(error.to_string().ends_with("No such file or directory (os error 2)"), "{error}");
    assert!(error.source().is_none());
}

#[test]
fn the_end_of_the_root_is_known() {
    let authority = Authority::self_signed(options()).unwrap();
    let end = authority.root_not_after().unwrap();
    assert!(end.duration_since(SystemTime::now()).unwrap() > options().root_ttl - HOUR);
    assert_eq!(end, authority.not_after());
}

/// An authority over plugged files, with what a test does to them.
struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new(signer: &Ca, roots: &str, pace: Pace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_plugged(dir.path(), signer, "", roots);
        let options = AuthorityOptions { pace, ..options() };
        let authority = Authority::plugged(dir.path(), options).unwrap();
        Self { dir, authority }
    }

    /// Two looks: files must have rested between them.
    fn look(&self, progress: Progress) -> Result<(), AuthorityError> {
        self.authority.look(SystemTime::now(), progress)?;
        self.authority.look(SystemTime::now(), progress)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }
}

const ALL: Progress = Progress { connected: 1, holding: 1 };
const NONE: Progress = Progress { connected: 1, holding: 0 };

fn swift() -> Pace {
    Pace { staged: true, least: Duration::ZERO, longest: Duration::from_secs(24 * 3600) }
}

/// A workload's side of TLS: its certificate, and the roots that it learnt.
struct Party {
    certificate: Arc<meltemi_tls::CertSlot>,
    trust: Arc<meltemi_tls::TrustSlot>,
}

impl Party {
    fn new(authority: &Authority) -> Self {
        let key = KeyPair::generate().unwrap();
        let issued = authority.sign(&request(&key), &id(), None).unwrap();
        let identity = Identity::from_pem(issued.chain.concat().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let anchors = TrustAnchors::from_pem(issued.root.as_bytes(), &[]).unwrap();
        Self { certificate: meltemi_tls::CertSlot::new(identity), trust: meltemi_tls::TrustSlot::new(anchors) }
    }

    fn learn(&self, authority: &Authority) {
        let bundle = authority.bundle();
        self.trust.set(TrustAnchors::from_pem(bundle.roots.as_bytes(), bundle.crl.as_bytes()).unwrap());
    }

    /// A handshake of TLS with both certificates, in memory.
    fn calls(&self, server: &Self) -> Result<(), String> {
        let validation =
            |party: &Self| Some(meltemi_tls::Validation { anchors: party.trust.clone(), ..Default::default() });
        let server_tls = meltemi_tls::ServerTls::new(meltemi_tls::ServerOptions {
            certificates: vec![server.certificate.clone()],
            validation: validation(server),
            require_client_certificate: true,
            ..Default::default()
        });
        let client_tls = meltemi_tls::ClientTls::new(meltemi_tls::ClientOptions {
            certificate: Some(self.certificate.clone()),
            validation: validation(self),
            ..Default::default()
        })
        .unwrap();
        let mut server = rustls::ServerConnection::new(server_tls.unwrap().config()).unwrap();
        let mut client = rustls::ClientConnection::new(client_tls.config(), client_tls.server_name()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().map_err(|e| format!("server: {e}"))?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {e}"))?;
        }
        Ok(())
    }
}

fn assert_all_call_all(parties: &[&Party], at: &str) {
    for client in parties {
        for server in parties {
            client.calls(server).unwrap_or_else(|e| panic!("{at}: {e}"));
        }
    }
}

#[test]
fn no_handshake_fails_while_files_of_another_root_are_put_in_force() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let files = Files::new(&old, &old.pem(), swift());
    let authority = &files.authority;
    let first = Party::new(authority);
    write_plugged(files.dir.path(), &new, "", &new.pem());
    files.look(NONE).unwrap();
    assert_eq!(authority.stage(), Stage::Distributing);
    let second = Party::new(authority);
    assert_all_call_all(&[&first, &second], "distributing");
    first.learn(authority);
    assert_all_call_all(&[&first, &second], "distributed");
    files.look(ALL).unwrap();
    assert_eq!(authority.stage(), Stage::Signing);
    let third = Party::new(authority);
    assert_all_call_all(&[&first, &second, &third], "signing");
    for party in [&first, &second] {
        party.learn(authority);
    }
    // Much later those with certificates of the old root have had others.
    authority.look(SystemTime::now() + Duration::from_secs(100 * 24 * 3600), ALL).unwrap();
    assert_eq!((authority.stage(), der(&authority.root_pem())), (Stage::Single, der(&new.pem())));
    let (fourth, stranger) = (Party::new(authority), first);
    third.learn(authority);
    assert_all_call_all(&[&third, &fourth], "retired");
    assert!(stranger.calls(&fourth).is_err(), "the old root is trusted no longer");
}

#[test]
fn files_that_cannot_be_used_leave_in_force_what_was_and_say_why() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let now = SystemTime::now();
    let ended = Ca::root_until("ended", now, -60);
    let weak = Ca::root_with_key("weak", &rcgen::PKCS_ED25519);
    let leaf = Ca::changed("leaf", |params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    let mute = Ca::changed("mute", |params| params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign]);
    let files = Files::new(&old, &old.pem(), swift());
    for (name, certificate, key, roots, expected) in [
        ("another's key", new.pem(), old.key_pem(), new.pem(), "does not belong"),
        ("another's root", new.pem(), new.key_pem(), old.pem(), "does not verify against the roots"),
        ("ended", ended.pem(), ended.key_pem(), ended.pem(), "has ended"),
        ("no authority", leaf.pem(), leaf.key_pem(), leaf.pem(), "CA:TRUE is missing"),
        ("no signing", mute.pem(), mute.key_pem(), mute.pem(), "may not sign"),
        ("a key of another kind", weak.pem(), weak.key_pem(), weak.pem(), "of a kind that is not taken"),
        ("no roots", new.pem(), new.key_pem(), String::new(), "no certificate"),
        ("a key among the roots", new.pem(), new.key_pem(), new.pem() + &new.key_pem(), "PRIVATE KEY where only"),
        ("garbage", "garbage".to_owned(), new.key_pem(), new.pem(), "no certificate"),
    ] {
        let before = files.authority.reloads.refused.load(Ordering::Relaxed);
        for (file, text) in [("ca-cert.pem", certificate), ("ca-key.pem", key.clone()), ("root-cert.pem", roots)] {
            files.write(file, &text);
        }
        let error = files.look(ALL).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains(key.lines().nth(1).unwrap()), "{name}: the key is in the error");
        assert_eq!(files.authority.status().refused.as_deref(), Some(&*error));
        assert_eq!(files.authority.reloads.refused.load(Ordering::Relaxed), before + 1, "{name}");
        files.look(ALL).unwrap_or_else(|e| panic!("{name}: said twice: {e}"));
        assert_eq!(der(&files.authority.root_pem()), der(&old.pem()), "{name}");
        Party::new(&files.authority).calls(&Party::new(&files.authority)).unwrap();
    }
    write_plugged(files.dir.path(), &new, "", &new.pem());
    files.look(ALL).unwrap();
    assert_eq!(files.authority.status().refused, None);
    assert_eq!(files.authority.reloads.taken.load(Ordering::Relaxed), 1);
}

#[test]
fn files_that_are_still_being_written_are_left_alone() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let files = Files::new(&old, &old.pem(), swift());
    let look = || files.authority.look(SystemTime::now(), ALL).unwrap();
    files.write("ca-cert.pem", &new.pem());
    look();
    files.write("ca-key.pem", &new.key_pem());
    look();
    files.write("root-cert.pem", &new.pem());
    look();
    assert_eq!(files.authority.reloads.refused.load(Ordering::Relaxed), 0);
    look();
    assert_eq!(files.authority.reloads.taken.load(Ordering::Relaxed), 1);
}

#[test]
fn signers_of_every_taken_kind_sign_for_keys_of_every_taken_kind() {
    let keys: Vec<KeyPair> = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
        .into_iter()
        .map(|algorithm| KeyPair::generate_for(algorithm).unwrap())
        .collect();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let root = Ca::root_with_key("root", algorithm);
        let files = Files::new(&root, &root.pem(), swift());
        for key in &keys {
            let issued = files.authority.sign(&request(key), &id(), None).unwrap();
            let anchors = TrustAnchors::from_pem(issued.root.as_bytes(), &[]).unwrap();
            anchors.verify(issued.chain.concat().as_bytes(), SystemTime::now()).unwrap();
            Identity::from_pem(issued.chain.concat().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        }
    }
}

#[test]
fn requests_that_ask_for_more_get_no_more_and_weak_keys_get_nothing() {
    let authority = Authority::self_signed(options()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names.push(SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap()));
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let leaf = der(&authority.sign(&csr, &id(), None).unwrap().chain[0]);
    let peer = PeerInfo::from_certificate(&leaf).unwrap();
    assert_eq!((peer.uri_sans, peer.dns_sans, peer.subject), (vec![id().to_string()], Vec::new(), String::new()));
    let (_, certificate) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert!(!certificate.is_ca() && !certificate.key_usage().unwrap().unwrap().value.key_cert_sign());

    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let long = format!("{}{}", request(&key), "\n".repeat(MAX_REQUEST_BYTES));
    for (name, csr) in [("Ed25519", request(&other)), ("too long", long)] {
        let error = authority.sign(&csr, &id(), None).expect_err(name);
        assert!(matches!(error, AuthorityError::Request(_)), "{name}: {error}");
    }
}

#[test]
fn a_self_signed_root_is_followed_by_another_before_it_ends_and_files_are_whole_all_the_while() {
    let dir = tempfile::tempdir().unwrap();
    let (day, second, start) = (Duration::from_secs(24 * 3600), Duration::from_secs(1), SystemTime::now());
    let open = |root_grace_percent| {
        let options =
            AuthorityOptions { root_ttl: 100 * day, max_ttl: day, pace: swift(), root_grace_percent, ..options() };
        Authority::persistent(dir.path(), AuthorityOptions { root_check_interval: second, ..options }).unwrap()
    };
    let authority = open(20);
    let first = authority.root_pem();
    authority.look(start + 79 * day, ALL).unwrap();
    assert_eq!(authority.root_pem(), first, "not yet");
    authority.look(start + 81 * day, NONE).unwrap();
    assert_eq!(authority.stage(), Stage::Distributing);

    // The same today, by another share of its life.
    fs::remove_dir_all(dir.path()).unwrap();
    open(100).look(SystemTime::now() + 2 * second, NONE).unwrap();
    let again = open(20);
    let both = CaCertificate::all("roots", &again.root_pem()).unwrap();
    assert_eq!((again.stage(), both.len()), (Stage::Distributing, 2), "it goes on where it was stopped");
    assert_eq!(again.status().next.as_ref(), Some(&both[1]));
    again.look(SystemTime::now() + second, ALL).unwrap();
    assert_eq!((again.stage(), again.status().signer), (Stage::Signing, both[1].clone()));
    assert!(!dir.path().join("ca-next-key.pem").exists());
    assert_eq!(open(20).status().signer, both[1], "the files hold the new key");

    again.look(start + 3 * day, ALL).unwrap();
    assert_eq!(again.stage(), Stage::Single);
    let kept = fs::read_to_string(dir.path().join("root-cert.pem")).unwrap();
    assert_eq!(CaCertificate::all("roots", &kept).unwrap(), both[1..], "the old root is gone from the files");
}

#[test]
fn a_root_that_somebody_added_to_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (day, start, other) = (Duration::from_secs(24 * 3600), SystemTime::now(), Ca::root("other"));
    let options = AuthorityOptions { root_ttl: 100 * day, max_ttl: day, pace: swift(), ..options() };
    let authority = Authority::persistent(dir.path(), options.clone()).unwrap();
    let file = dir.path().join("root-cert.pem");
    fs::write(&file, format!("{}{}", fs::read_to_string(&file).unwrap(), other.pem())).unwrap();
    for at in [81, 82, 90] {
        authority.look(start + at * day, ALL).unwrap();
    }
    let kept = CaCertificate::all("roots", &fs::read_to_string(&file).unwrap()).unwrap();
    assert!(kept.len() == 2 && kept.iter().any(|root| root.der() == der(&other.pem())), "{kept:?}");
}

#[test]
fn zero_as_the_interval_of_looks_keeps_a_self_signed_root_for_ever() {
    let options = AuthorityOptions { root_check_interval: Duration::ZERO, ..options() };
    let authority = Authority::self_signed(options).unwrap();
    let root = authority.root_pem();
    authority.look(SystemTime::now() + Duration::from_secs(9 * 365 * 24 * 3600), ALL).unwrap();
    assert_eq!(authority.root_pem(), root);
}

#[test]
fn nothing_that_holds_a_key_shows_it() {
    let root = Ca::root("root");
    let signer = root.signer(&root.pem(), SystemTime::now());
    let shown = format!("{signer:?} {:?}", Authority::self_signed(options()).unwrap().status());
    let key = root.key_pem();
    assert!(key.lines().filter(|line| !line.starts_with('-')).all(|line| !shown.contains(line)), "{shown}");
    assert!(shown.contains("CN=root"), "{shown}");
}

#[test]
fn revocation_lists_are_part_of_the_bundle_once_they_are_checked() {
    let root = Ca::root("root");
    let files = Files::new(&root, &root.pem(), swift());
    files.write("ca-crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert!(files.look(ALL).is_err());
    assert_eq!(&*files.authority.bundle().crl, "");
    let list = crate::testing::revocations(&root, SystemTime::now() + HOUR);
    files.write("ca-crl.pem", &list);
    files.look(ALL).unwrap();
    assert_eq!(files.authority.bundle().crl.trim(), list.trim());
}

#[test]
fn a_supplied_authority_follows_what_is_supplied_and_keeps_what_it_has_where_that_is_wrong() {
    let options = AuthorityOptions { pace: Pace { staged: false, ..Pace::default() }, ..options() };
    let first = Material::self_signed(&options).unwrap();
    let authority = Authority::supplied(&Material::from_files(&first.to_files()).unwrap(), options.clone()).unwrap();
    assert_eq!(&*authority.root_pem(), first.roots);
    authority.look(SystemTime::now(), Progress::default()).unwrap();
    let second = Material::self_signed(&options).unwrap();
    let mut broken = second.to_files();
    broken.insert("ca-key.pem".to_owned(), first.to_files()["ca-key.pem"].clone());
    authority.supply(Material::from_files(&broken).unwrap());
    authority.look(SystemTime::now(), Progress::default()).unwrap_err();
    assert_eq!(&*authority.root_pem(), first.roots);
    authority.supply(second);
    authority.look(SystemTime::now(), Progress::default()).unwrap();
    assert!(authority.root_pem().starts_with(&*authority.status().roots[0].certificate.pem().to_string()));
    assert_ne!(&*authority.root_pem(), first.roots);
}

#[test]
fn files_of_a_secret_are_read_by_either_set_of_names() {
    let own = Material::self_signed(&options()).unwrap();
    let file = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let tls = [("tls.crt", &*own.certificate), ("tls.key", &*own.key), ("ca.crt", &*own.roots)];
    let tls: crate::Files = tls.map(|(name, text)| (name.to_owned(), file(text))).into();
    assert_eq!(Material::from_files(&tls).unwrap().roots, own.roots);
    // As Istio keeps its own root: the other files are there and empty.
    let mut istio = own.to_files();
    for name in ["root-cert.pem", "cert-chain.pem", "key.pem"] {
        istio.insert(name.to_owned(), file(""));
    }
    assert_eq!(Material::from_files(&istio).unwrap().roots, own.certificate);
    istio.remove("ca-key.pem");
    assert!(matches!(Material::from_files(&istio), Err(AuthorityError::Half { missing: "ca-key.pem", .. })));
    assert!(Material::from_files(&crate::Files::new()).is_err());
}

#[test]
fn roots_of_others_are_distributed_and_nothing_is_signed_here() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let authority = Authority::supplied(&Material::of_others(&old.pem()), options()).unwrap();
    assert_eq!(der(&authority.root_pem()), der(&old.pem()));
    let csr = request(&KeyPair::generate().unwrap());
    assert!(matches!(authority.sign(&csr, &id(), None), Err(AuthorityError::Keyless)));
    assert!(!authority.is_supplied());
    assert!(Authority::supplied(&old.material(&old.pem()), options()).unwrap().is_supplied());
    let now = SystemTime::now();
    authority.supply(Material::of_others(&format!("{}{}", new.pem(), old.pem())));
    authority.look(now, Progress::default()).unwrap();
    assert!(authority.root_pem().contains(&new.pem().replace("\r\n", "\n")));
    assert_eq!(authority.stage(), Stage::Distributing);
    authority.supply(Material::of_others("nothing"));
    authority.look(now, Progress::default()).unwrap_err();
    let error = Authority::supplied(&Material::of_others(&Ca::root_until("ended", now, -60).pem()), options());
    assert!(matches!(error, Err(AuthorityError::Unrooted(_))));
}

#[test]
fn a_restart_knows_roots_that_plugged_files_no_longer_hold_until_their_certificates_have_ended() {
    let (old, new, dir) = (Ca::root("old"), Ca::root("new"), tempfile::tempdir().unwrap());
    write_plugged(dir.path(), &old, "", &old.pem());
    let options = AuthorityOptions { pace: swift(), max_ttl: HOUR, default_ttl: HOUR, ..options() };
    let authority = Authority::plugged(dir.path(), options.clone()).unwrap();
    let start = SystemTime::now();
    authority.sign(&request(&KeyPair::generate().unwrap()), &id(), None).unwrap();
    write_plugged(dir.path(), &new, "", &new.pem());
    let all = Progress { connected: 1, holding: 1 };
    for second in 1..10 {
        authority.look(start + Duration::from_secs(second), all).unwrap();
    }
    assert_eq!(authority.stage(), Stage::Signing);
    let trusts = |authority: &Authority, ca: &Ca| {
        let roots = CaCertificate::all("roots", &authority.root_pem()).unwrap();
        roots.iter().any(|root| root.der() == der(&ca.pem()))
    };
    let again = Authority::plugged(dir.path(), options.clone()).unwrap();
    assert!(trusts(&again, &old) && trusts(&again, &new));
    assert_eq!(again.former_roots(), authority.former_roots());
    assert!(!again.status().roots[1].in_files);
    again.look(start + 3 * HOUR, all).unwrap();
    assert!(!trusts(&again, &old) && trusts(&again, &new));
    fs::write(dir.path().join("ca-former-roots.json"), "broken").unwrap();
    let error = Authority::plugged(dir.path(), options).err().unwrap().to_string();
    assert!(error.contains("former roots"), "{error}");
}

#[test]
fn revocation_lists_that_are_not_taken_are_not_looked_at() {
    let root = Ca::root("root");
    let dir = tempfile::tempdir().unwrap();
    write_plugged(dir.path(), &root, "", &root.pem());
    fs::write(dir.path().join("ca-crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    let taking =
        |takes_revocations| Authority::plugged(dir.path(), AuthorityOptions { takes_revocations, ..options() });
    assert!(taking(true).is_err());
    taking(false).unwrap();
    fs::write(dir.path().join("ca-crl.pem"), crate::testing::revocations(&root, SystemTime::now() + HOUR)).unwrap();
    assert!(!taking(true).unwrap().bundle().crl.is_empty());
    assert_eq!(&*taking(false).unwrap().bundle().crl, "");
}
