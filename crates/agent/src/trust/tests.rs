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
    let bundle_of = |roots: &str, crl: &str| TrustBundle { roots_pem: roots.to_owned(), crl_pem: crl.to_owned() };
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
