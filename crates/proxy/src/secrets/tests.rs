use super::*;
use rcgen::{CertificateParams, KeyPair};

fn certificate() -> TlsCertificate {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let inline = |text: String| DataSource::Inline(text.into());
    TlsCertificate {
        chain: inline(certificate.pem()),
        key: inline(key.serialize_pem()),
        password: None,
        ocsp_staple: None,
        watched_directory: None,
    }
}

fn context(names: &[&str]) -> Secret {
    let key = KeyPair::generate().unwrap();
    let root = CertificateParams::default().self_signed(&key).unwrap();
    let matcher = |name: &&str| PlanSan { kind: SanKind::Uri, matcher: meltemi_matchers::StringMatcher::exact(name) };
    let context = ValidationContext {
        trusted_ca: Some(DataSource::Inline(root.pem().into())),
        sans: names.iter().map(matcher).collect(),
        ..ValidationContext::default()
    };
    Secret { name: "ROOTCA".into(), kind: SecretKind::Validation(Arc::new(context)) }
}

#[test]
fn a_rotated_certificate_fills_the_slot_that_contexts_hold() {
    let mut store = SecretStore::default();
    let reference = SecretRef::Sds { name: "default".into(), source: None };
    let slot = store.certificate_slot(&reference).unwrap();
    assert_eq!(store.missing().len(), 1);
    let secret = Secret { name: "default".into(), kind: SecretKind::Certificate(Arc::new(certificate())) };
    assert!(!store.install(&secret).unwrap());
    assert!(slot.current().is_some());
    assert!(store.missing().is_empty());
}

#[test]
fn only_changed_demands_ask_for_new_contexts() {
    let mut store = SecretStore::default();
    assert!(!store.install(&context(&[])).unwrap(), "anchors alone");
    assert!(store.install(&context(&["spiffe://a"])).unwrap(), "names to verify");
    assert!(!store.install(&context(&["spiffe://a"])).unwrap(), "new anchors, same names");
}

#[test]
fn trust_domains_replace_the_roots_and_leave_uris_alone_to_be_matched() {
    let root = || CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let bundle = |name: &str| TrustDomain { name: name.into(), bundle: DataSource::Inline(root().into()) };
    let san = |kind| PlanSan { kind, matcher: meltemi_matchers::StringMatcher::exact("a.example") };
    let by_domain = ValidationContext {
        sans: vec![san(SanKind::Dns), san(SanKind::Any)],
        accept_untrusted: true,
        trust_domains: vec![bundle("a.example"), bundle("b.example")],
        ..ValidationContext::default()
    };
    let mut store = SecretStore::default();
    let by_domain = Arc::new(by_domain);
    let secret = Secret { name: "ROOTCA".into(), kind: SecretKind::Validation(by_domain.clone()) };
    assert!(store.install(&secret).unwrap(), "the peer must be known from now on");
    assert!(!store.install(&secret).unwrap());
    let named = PlanValidation::Sds { name: "ROOTCA".into(), source: None };
    for plan in [named, PlanValidation::Static(by_domain)] {
        let found = store.validation(&plan).unwrap().unwrap();
        assert!(found.svids_only && !found.accept_untrusted && !found.unanchored);
        assert_eq!(found.anchors.roots().len(), 2);
        let [matches] = &found.sans[..] else { panic!("{found:?}") };
        assert!(matches(&San::Uri("a.example")) && !matches(&San::Dns("a.example")));
    }
}

#[test]
fn a_wildcard_of_a_certificate_stands_for_one_label() {
    let matches = |wanted: &str, san: San<'_>| {
        san_matcher(&PlanSan { kind: SanKind::Any, matcher: meltemi_matchers::StringMatcher::exact(wanted) })(&san)
    };
    for (wanted, name, expected) in [
        ("a.example.com", "a.example.com", true),
        ("A.example.com", "a.EXAMPLE.com", true),
        ("a.example.com", "*.example.com", true),
        ("a.b.example.com", "*.example.com", false),
        ("example.com", "*.example.com", false),
        (".example.com", "*.example.com", false),
        ("a.example.com", "*", false),
        ("a.example.com", "a.example.com\0.evil.com", false),
        ("a.example.com", "*.com", false),
    ] {
        assert_eq!(matches(wanted, San::Dns(name)), expected, "{wanted} {name}");
    }
    assert!(!matches("a.example.com", San::Uri("*.example.com")));
}

#[test]
fn a_missing_file_is_named() {
    let path = std::path::Path::new("/nowhere/cert.pem");
    let source = DataSource::File { path: path.into(), watched_directory: None };
    assert!(read(&source).unwrap_err().to_string().contains("/nowhere/cert.pem"));
}
