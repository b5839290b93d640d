use super::*;
use meltemi_tls::PeerInfo;

const TTL: Duration = Duration::from_secs(3600);

fn options() -> AuthorityOptions {
    AuthorityOptions::new("cluster.local".parse().unwrap())
}

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap()
}

fn request(key: &KeyPair) -> String {
    // Asks for a name that it must not get.
    let params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
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
    assert!(!certificate.is_ca());
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
    assert!(lifetime(Some(TTL)).abs_diff(3600 + skew) <= 1);
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
    let (root_pem, root_key) = new_root(&"cluster.local".parse().unwrap()).unwrap();
    let root = Issuer::from_ca_cert_pem(&root_pem, KeyPair::from_pem(&root_key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    let intermediate = params.signed_by(&key, &root).unwrap().pem();
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("ca-cert.pem", &intermediate),
        ("ca-key.pem", &key.serialize_pem()),
        ("root-cert.pem", &root_pem),
        ("cert-chain.pem", &format!("{intermediate}{root_pem}")),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let authority = Authority::plugged(dir.path(), options()).unwrap();
    let issued = authority.sign(&request(&KeyPair::generate().unwrap()), &id(), None).unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(issued.chain[1].trim(), intermediate.trim());
    assert_eq!(issued.root, root_pem);
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
    assert!(end.duration_since(SystemTime::now()).unwrap() > ROOT_LIFETIME - TTL);
    assert_eq!(end, authority.not_after());
}
