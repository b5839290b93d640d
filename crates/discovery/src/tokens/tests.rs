use super::*;
use std::sync::Mutex;

use axum::routing::get;
use axum::{Json, Router};
use meltemi_ca::TokenIssuer;
use serde_json::{Value, json};

use crate::documents::Roots;
use crate::keys::ForbiddenAddresses;

/// An issuer on loopback, whose documents a test may change.
struct Issuer {
    url: String,
    documents: Arc<Mutex<[Value; 2]>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let documents = Arc::new(Mutex::new([provider, json!({ "keys": [] })]));
        let document = |place: usize| {
            let documents = documents.clone();
            get(move || async move { Json(documents.lock().unwrap()[place].clone()) })
        };
        let routes = Router::new()
            .route("/.well-known/openid-configuration", document(0))
            .route("/keys", document(1))
            .route("/long", get(|| async { "x".repeat(1 << 20) }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, documents }
    }
}

fn documents() -> Documents {
    Documents::new(ForbiddenAddresses::default(), Roots::SystemAnd(Vec::new())).without_redirects()
}

/// The key of an issuer as a set, made from its PEM.
fn set_of(issuer: &TokenIssuer) -> Value {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let body: String = issuer.public_pem().lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    let (x, y) = der[der.len() - 64..].split_at(32);
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": base64.encode(x), "y": base64.encode(y) }] })
}

#[tokio::test]
async fn an_issuer_gives_its_keys_and_changes_them() {
    let issuer = Issuer::start().await;
    let (documents, verifier) = (documents(), TokenVerifier::without_keys(&issuer.url));
    assert!(renew(&issuer.url, &documents, &verifier).await.is_err(), "an empty set");
    let hour = Duration::from_secs(3600);
    for _ in 0..2 {
        let signing = TokenIssuer::generate(&issuer.url).unwrap();
        let token = signing.issue("shop", "catalog", hour).unwrap();
        assert!(verifier.verify(&token).is_err());
        issuer.documents.lock().unwrap()[1] = set_of(&signing);
        renew(&issuer.url, &documents, &verifier).await.unwrap();
        assert_eq!(verifier.verify(&token).unwrap().name, "catalog");
    }
}

#[tokio::test]
async fn what_an_issuer_may_not_do_leaves_the_keys_as_they_were() {
    let issuer = Issuer::start().await;
    let (documents, verifier) = (documents(), TokenVerifier::without_keys(&issuer.url));
    let url = |path: &str| format!("{}{path}", issuer.url);
    for (provider, expected) in [
        (json!({ "issuer": "https://other.example", "jwks_uri": url("/keys") }), "that of \"https://other.example\""),
        (json!({ "issuer": issuer.url, "jwks_uri": "http://keys.example/keys" }), "only https"),
        (json!({ "issuer": issuer.url, "jwks_uri": "file:///etc/passwd" }), "not a URL"),
        (json!({ "issuer": issuer.url, "jwks_uri": url("/nothing") }), "404"),
        (json!({ "issuer": issuer.url, "jwks_uri": url("/long") }), "length limit exceeded"),
        (json!({ "issuer": issuer.url }), "the issuer's configuration"),
    ] {
        issuer.documents.lock().unwrap()[0] = provider;
        let error = format!("{:#}", renew(&issuer.url, &documents, &verifier).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}
