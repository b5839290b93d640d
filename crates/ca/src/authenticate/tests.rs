use super::*;
use crate::token::{TokenIssuer, TokenVerifier};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn domain(text: &str) -> TrustDomain {
    text.parse().unwrap()
}

fn peer(uris: &[&str]) -> PeerInfo {
    PeerInfo { uri_sans: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..PeerInfo::default() }
}

fn bearer(token: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
    metadata
}

#[tokio::test]
async fn each_issuers_tokens_are_judged_by_its_own_keys() {
    let (one, two, none) = ["one", "two", "none"].map(|name| TokenIssuer::generate(name).unwrap()).into();
    let verifier = |issuer: &TokenIssuer, name| -> Arc<dyn TokenAuthority> {
        Arc::new(TokenVerifier::from_pem(issuer.public_pem(), name).unwrap())
    };
    let authenticator = Authenticator::new(domain("a.example"), vec![verifier(&one, "one"), verifier(&two, "two")]);
    for issuer in [&one, &two] {
        let token = issuer.issue("shop", "catalog", HOUR).unwrap();
        let caller = authenticator.authenticate(&bearer(&token), None).await.unwrap();
        assert_eq!(caller.id.to_string(), "spiffe://a.example/ns/shop/sa/catalog");
    }
    let token = none.issue("shop", "catalog", HOUR).unwrap();
    let error = authenticator.authenticate(&bearer(&token), None).await.unwrap_err();
    assert!(error.to_string().contains("no issuer that is accepted"), "{error}");
    let long = authenticator.authenticate(&bearer(&"a".repeat(MAX_TOKEN_BYTES + 1)), None).await.unwrap_err();
    assert!(long.to_string().contains("too long"));
}

#[tokio::test]
async fn an_account_that_is_no_part_of_a_name_is_refused() {
    let issuer = TokenIssuer::generate("one").unwrap();
    let verifier = TokenVerifier::from_pem(issuer.public_pem(), "one").unwrap();
    let authenticator = Authenticator::new(domain("a.example"), vec![Arc::new(verifier)]);
    for (namespace, account) in [("shop/sa/x", "y"), ("shop", "a:b"), ("", "a"), ("..", "a")] {
        let token = issuer.issue(namespace, account, HOUR).unwrap();
        assert!(authenticator.authenticate(&bearer(&token), None).await.is_err(), "{namespace} {account}");
    }
}

#[tokio::test]
async fn a_certificate_of_a_former_trust_domain_is_renewed_under_todays() {
    let authenticator = Authenticator::new(domain("new.example"), Vec::new());
    let old = peer(&["spiffe://old.example/ns/shop/sa/catalog"]);
    let metadata = MetadataMap::new();
    assert!(authenticator.authenticate(&metadata, Some(&old)).await.is_err());
    authenticator.set_aliases(vec![domain("old.example")]);
    let caller = authenticator.authenticate(&metadata, Some(&old)).await.unwrap();
    assert_eq!(caller.id.to_string(), "spiffe://new.example/ns/shop/sa/catalog");
    let stranger = peer(&["spiffe://other.example/ns/shop/sa/catalog"]);
    assert!(authenticator.authenticate(&metadata, Some(&stranger)).await.is_err());
}

#[tokio::test]
async fn a_certificate_of_two_names_proves_neither() {
    let authenticator = Authenticator::new(domain("a.example"), Vec::new());
    let two = peer(&["spiffe://a.example/ns/shop/sa/catalog", "spiffe://a.example/ns/shop/sa/admin"]);
    let error = authenticator.authenticate(&MetadataMap::new(), Some(&two)).await.unwrap_err();
    assert!(error.to_string().contains("2 names"), "{error}");
    let nameless = authenticator.authenticate(&MetadataMap::new(), Some(&peer(&[]))).await;
    assert_eq!(nameless, Err(AuthError::Missing));
}
