use super::*;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, TlsCertificate};

fn inline(text: &str) -> Option<DataSource> {
    let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec().into()));
    Some(DataSource { specifier, ..DataSource::default() })
}

fn context(trusted_ca: Option<DataSource>, crl: Option<DataSource>) -> Secret {
    let context = CertificateValidationContext { trusted_ca, crl, ..CertificateValidationContext::default() };
    Secret { name: ROOT_CA.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

#[test]
fn a_bundle_is_roots_and_perhaps_revocation_lists_in_the_message_itself() {
    let bundle_of = |roots: &str, crl: &str| TrustBundle {
        roots_pem: roots.to_owned(),
        crl_pem: crl.to_owned(),
        ..TrustBundle::default()
    };
    assert_eq!(bundle(context(inline("roots"), None)), Ok(bundle_of("roots", "")));
    assert_eq!(bundle(context(inline("roots"), inline("lists"))), Ok(bundle_of("roots", "lists")));
    let file = || {
        let specifier = Some(Specifier::Filename("/etc/passwd".to_owned()));
        Some(DataSource { specifier, ..DataSource::default() })
    };
    let certificate = Some(Type::TlsCertificate(TlsCertificate::default()));
    for (name, secret) in [
        ("no roots", context(None, None)),
        ("roots in a file", context(file(), None)),
        ("lists in a file", context(inline("roots"), file())),
        ("a certificate", Secret { name: ROOT_CA.to_owned(), r#type: certificate }),
        ("nothing", Secret::default()),
    ] {
        assert!(bundle(secret).is_err(), "{name}");
    }
}

#[test]
fn trust_domains_with_roots_of_their_own_come_by_envoy_s_validator() {
    let domains: BTreeMap<String, String> =
        [("own", "one"), ("old", "two")].map(|(name, roots)| (name.to_owned(), roots.to_owned())).into();
    let mut secret = context(inline("one"), None);
    let Some(Type::ValidationContext(context)) = &mut secret.r#type else { panic!("a context") };
    context.custom_validator_config = validator(&domains, "lists");
    let found = bundle(secret.clone()).unwrap();
    assert_eq!(found.domains.keys().collect::<Vec<_>>(), ["old", "own"]);
    assert_eq!(found.domains["old"], "two\nlists");
    let Some(Type::ValidationContext(context)) = &mut secret.r#type else { panic!("a context") };
    context.custom_validator_config.as_mut().unwrap().name = "another".to_owned();
    assert!(bundle(secret).is_err(), "rules that this agent does not know are not left out");
    assert_eq!(validator(&BTreeMap::new(), "lists"), None);
}
