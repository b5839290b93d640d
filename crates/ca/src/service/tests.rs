use super::*;
use crate::authority::AuthorityOptions;
use crate::token::{TokenIssuer, TokenVerifier, now};
use meltemi_tls::TrustDomain;
use rcgen::{CertificateParams, KeyPair};

const HOUR: Duration = Duration::from_secs(3600);

struct Setup {
    service: CertificateService,
    issuer: TokenIssuer,
}

fn setup() -> Setup {
    let trust_domain: TrustDomain = "cluster.local".parse().unwrap();
    let issuer = TokenIssuer::generate("test").unwrap();
    let verifier = TokenVerifier::from_pem(issuer.public_pem(), "test").unwrap();
    let authority = Authority::self_signed(AuthorityOptions::new(trust_domain.clone())).unwrap();
    let authenticator = Authenticator::new(trust_domain, vec![Arc::new(verifier)]);
    Setup { service: CertificateService::new(Arc::new(authority), Arc::new(authenticator)), issuer }
}

fn request(token: Option<&str>, peer: Option<&str>) -> Request<IstioCertificateRequest> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let mut request = Request::new(IstioCertificateRequest { csr, validity_duration: 60, metadata: None });
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    if let Some(uri) = peer {
        let info = PeerInfo { uri_sans: vec![uri.to_owned()], ..PeerInfo::default() };
        request.extensions_mut().insert(PeerCertificate(Arc::new(info)));
    }
    request
}

async fn identity(service: &CertificateService, request: Request<IstioCertificateRequest>) -> Result<String, Status> {
    let chain = service.create_certificate(request).await?.into_inner().cert_chain;
    assert_eq!(chain.len(), 2, "leaf and root");
    let leaf = x509_parser::pem::parse_x509_pem(chain[0].as_bytes()).unwrap().1.contents;
    Ok(PeerInfo::from_certificate(&leaf).unwrap().uri_sans.remove(0))
}

#[tokio::test]
async fn a_token_gives_its_own_identity() {
    let Setup { service, issuer } = setup();
    let token = issuer.issue("shop", "catalog", HOUR).unwrap();
    let id = identity(&service, request(Some(&token), None)).await.unwrap();
    assert_eq!(id, "spiffe://cluster.local/ns/shop/sa/catalog");
    assert_eq!(service.counters().issued.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_client_certificate_renews_its_own_identity() {
    let Setup { service, .. } = setup();
    let uri = "spiffe://cluster.local/ns/shop/sa/catalog";
    assert_eq!(identity(&service, request(None, Some(uri))).await.unwrap(), uri);
}

#[tokio::test]
async fn credentials_that_prove_nothing_are_refused() {
    let Setup { service, issuer } = setup();
    let expired = issuer.issue_for("shop", "catalog", now() - 60..now() - 1).unwrap();
    let foreign = TokenIssuer::generate("test").unwrap().issue("shop", "catalog", HOUR).unwrap();
    let renamed = TokenIssuer::generate("other").unwrap().issue("shop", "catalog", HOUR).unwrap();
    let stranger = "spiffe://elsewhere/ns/shop/sa/catalog";
    let good = "spiffe://cluster.local/ns/shop/sa/catalog";
    for (name, request) in [
        ("nothing", request(None, None)),
        ("a foreign key", request(Some(&foreign), None)),
        ("an expired token", request(Some(&expired), None)),
        ("another issuer", request(Some(&renamed), None)),
        ("no token", request(Some("garbage"), None)),
        ("another trust domain", request(None, Some(stranger))),
        ("a bad token beside a good certificate", request(Some("garbage"), Some(good))),
    ] {
        let status = identity(&service, request).await.expect_err(name);
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{name}");
    }
    assert_eq!(service.counters().issued.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_broken_request_is_the_callers_fault() {
    let Setup { service, issuer } = setup();
    let token = issuer.issue("shop", "catalog", HOUR).unwrap();
    let mut broken = request(Some(&token), None);
    broken.get_mut().csr = "no PEM".to_owned();
    let status = identity(&service, broken).await.expect_err("broken");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
