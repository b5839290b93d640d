use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const HOUR: u64 = 3600;
const ISSUER: &str = "https://issuer.example";

/// A key pair of an issuer, with its public half as a JSON Web Key.
struct Signing {
    key: EncodingKey,
    jwk: Value,
}

impl Signing {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate().unwrap();
        let point = rcgen::PublicKeyData::der_bytes(&pair);
        let (x, y) = point[1..].split_at(32);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "kid": id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        Self { key: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(), jwk }
    }

    fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "system:serviceaccount:shop:catalog", "aud": ["istio-ca"],
        "exp": now() + HOUR, "iat": now(), "nbf": now(),
        "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "catalog" } },
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn set(keys: &[&Value]) -> String {
    json!({ "keys": keys }).to_string()
}

#[test]
fn a_token_of_kubernetes_is_verified_by_the_keys_of_its_issuer() {
    let (one, two) = (Signing::new("one"), Signing::new("two"));
    let verifier = TokenVerifier::from_jwks(&set(&[&one.jwk, &two.jwk]), ISSUER).unwrap();
    let catalog = ServiceAccount { namespace: "shop".to_owned(), name: "catalog".to_owned() };
    assert_eq!(verifier.verify(&one.sign(Some("one"), &claims())).unwrap(), catalog);
    assert_eq!(verifier.verify(&two.sign(None, &claims())).unwrap(), catalog, "without a key id each is tried");
    assert_eq!(verifier.verify(&one.sign(Some("one"), &with("aud", json!("istio-ca")))).unwrap(), catalog);
}

#[test]
fn what_a_token_says_must_be_right() {
    let (one, stranger) = (Signing::new("one"), Signing::new("one"));
    let verifier = TokenVerifier::from_jwks(&set(&[&one.jwk]), ISSUER).unwrap();
    for (name, token) in [
        ("another audience", one.sign(None, &with("aud", json!(["kubernetes"])))),
        ("another issuer", one.sign(None, &with("iss", json!("https://else.example")))),
        ("ended", one.sign(None, &with("exp", json!(now() - 1)))),
        ("not yet", one.sign(None, &with("nbf", json!(now() + HOUR)))),
        ("a user", one.sign(None, &with("sub", json!("alice")))),
        ("no end", one.sign(None, &with("exp", Value::Null))),
        ("another's signature", stranger.sign(None, &claims())),
        ("a key id that is not there", one.sign(Some("two"), &claims())),
    ] {
        let error = verifier.verify(&token).expect_err(name).to_string();
        assert!(!error.contains(&token), "{name}");
    }
}

#[test]
fn a_token_signed_with_a_public_key_as_a_shared_secret_is_refused() {
    let one = Signing::new("one");
    let verifier = TokenVerifier::from_jwks(&set(&[&one.jwk]), ISSUER).unwrap();
    let secret = EncodingKey::from_secret(one.jwk["x"].as_str().unwrap().as_bytes());
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    assert!(verifier.verify(&jsonwebtoken::encode(&header, &claims(), &secret).unwrap()).is_err());
    let none =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims().to_string()));
    assert!(verifier.verify(&none).is_err());
}

#[test]
fn keys_are_replaced_and_a_set_that_cannot_be_used_is_not_taken() {
    let (one, two) = (Signing::new("one"), Signing::new("two"));
    let verifier = TokenVerifier::from_jwks(&set(&[&one.jwk]), ISSUER).unwrap();
    for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        assert!(verifier.set_jwks(bad).is_err(), "{bad}");
    }
    let many = vec![&one.jwk; MAX_KEYS + 1];
    assert!(verifier.set_jwks(&set(&many)).is_err());
    assert!(verifier.verify(&one.sign(None, &claims())).is_ok());
    let unknown = json!({ "kty": "XYZ", "kid": "new kind" });
    verifier.set_jwks(&set(&[&unknown, &two.jwk])).unwrap();
    assert!(verifier.verify(&one.sign(None, &claims())).is_err());
    assert!(verifier.verify(&two.sign(None, &claims())).is_ok());
}

#[test]
fn audiences_can_be_others() {
    let one = Signing::new("one");
    let verifier = TokenVerifier::from_jwks(&set(&[&one.jwk]), ISSUER).unwrap().with_audiences(vec!["mesh".to_owned()]);
    assert!(verifier.verify(&one.sign(None, &claims())).is_err());
    assert!(verifier.verify(&one.sign(None, &with("aud", json!(["other", "mesh"])))).is_ok());
}
