use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Who signs tokens in tests.
pub(crate) enum Signer {
    Ec(&'static str, EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
    Secret(&'static [u8]),
}

impl Signer {
    pub fn ec(crv: &'static str) -> Self {
        let algorithm: &EcdsaSigningAlgorithm = match crv {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self::Ec(crv, EcdsaKeyPair::generate(algorithm).unwrap())
    }

    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// The public half.
    pub fn jwk(&self, id: &str) -> Value {
        let mut key = match self {
            Self::Ec(crv, pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": crv, "x": encode(x), "y": encode(y) })
            }
            Self::Rsa(pair) => {
                // A sequence of two integers, of which the first has 2048 bits.
                let modulus = &pair.public_key().as_ref()[9..265];
                json!({ "kty": "RSA", "n": encode(modulus), "e": "AQAB" })
            }
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) })
            }
            Self::Secret(secret) => json!({ "kty": "oct", "k": encode(secret) }),
        };
        if !id.is_empty() {
            key["kid"] = json!(id);
        }
        key
    }

    pub fn sign(&self, header: &Value, payload: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(payload.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Ec(_, pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match header["alg"].as_str().unwrap() {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, signed.as_bytes(), &mut out).unwrap();
                out
            }
            Self::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::Secret(secret) => {
                let hash = match header["alg"].as_str().unwrap() {
                    "HS384" => aws_lc_rs::hmac::HMAC_SHA384,
                    "HS512" => aws_lc_rs::hmac::HMAC_SHA512,
                    _ => aws_lc_rs::hmac::HMAC_SHA256,
                };
                aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(hash, secret), signed.as_bytes()).as_ref().to_vec()
            }
        };
        format!("{signed}.{}", encode(signature))
    }
}

fn keys(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn verify(keys: &KeySet, text: &str) -> Result<(), Status> {
    keys.verify(&Token::parse(text)?)
}

#[test]
fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    let all = [
        (Signer::ec("P-256"), &["ES256"][..]),
        (Signer::ec("P-384"), &["ES384"]),
        (Signer::ec("P-521"), &["ES512"]),
        (Signer::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (Signer::ed25519(), &["EdDSA"]),
        (Signer::Secret(b"a secret of thirty-two bytes ...."), &["HS256", "HS384", "HS512"]),
    ];
    for (signer, algorithms) in &all {
        let set = keys(&[signer.jwk("")]);
        for algorithm in *algorithms {
            let text = signer.sign(&json!({ "alg": algorithm }), &json!({ "iss": "i" }));
            assert_eq!(verify(&set, &text), Ok(()), "{algorithm}");
            let (signed, signature) = text.rsplit_once('.').unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
            bytes[5] ^= 1;
            let forged = format!("{signed}.{}", encode(&bytes));
            assert_eq!(verify(&set, &forged), Err(Status::VerificationFailed), "{algorithm}");
            let other = format!(
                "{}.{}.{signature}",
                encode(json!({ "alg": algorithm }).to_string()),
                encode("{\"iss\":\"j\"}")
            );
            assert_eq!(verify(&set, &other), Err(Status::VerificationFailed), "{algorithm}");
        }
    }
}

#[test]
fn an_algorithm_belongs_to_one_type_of_key() {
    let rsa = Signer::rsa();
    let jwk = rsa.jwk("");
    // The attack of a public key taken for a secret.
    let modulus: &'static str = String::leak(jwk["n"].as_str().unwrap().to_owned());
    let confused = Signer::Secret(modulus.as_bytes()).sign(&json!({ "alg": "HS256" }), &json!({}));
    assert_eq!(verify(&keys(&[jwk]), &confused), Err(Status::VerificationFailed));
    let secret = Signer::Secret(b"0123456789abcdef0123456789abcdef");
    let text = secret.sign(&json!({ "alg": "RS256" }), &json!({}));
    assert_eq!(verify(&keys(&[secret.jwk("")]), &text), Err(Status::VerificationFailed));
    let curve = Signer::ec("P-256");
    let text = curve.sign(&json!({ "alg": "ES384" }), &json!({}));
    assert_eq!(verify(&keys(&[curve.jwk("")]), &text), Err(Status::VerificationFailed));
    let none = format!("{}.{}.{}", encode("{\"alg\":\"none\"}"), encode("{}"), "AA");
    assert_eq!(verify(&keys(&[curve.jwk("")]), &none), Err(Status::UnknownAlgorithm));
}

#[test]
fn a_key_is_chosen_by_its_id_and_its_algorithm() {
    let (one, two) = (Signer::ec("P-256"), Signer::ec("P-256"));
    let mut other_use = two.jwk("b");
    other_use["alg"] = json!("ES512");
    other_use["crv"] = json!("P-521");
    let set = keys(&[one.jwk("a"), two.jwk("b")]);
    let sign = |signer: &Signer, id: &str| signer.sign(&json!({ "alg": "ES256", "kid": id }), &json!({}));
    assert_eq!(verify(&set, &sign(&one, "a")), Ok(()));
    assert_eq!(verify(&set, &sign(&two, "b")), Ok(()));
    assert_eq!(verify(&set, &sign(&two, "a")), Err(Status::VerificationFailed));
    assert_eq!(verify(&set, &sign(&two, "c")), Err(Status::NoMatchingKey));
    assert_eq!(verify(&set, &two.sign(&json!({ "alg": "ES256" }), &json!({}))), Ok(()));
    let mut bound = one.jwk("a");
    bound["alg"] = json!("ES256");
    let rsa = json!({ "alg": "RS256", "kid": "a" });
    assert_eq!(verify(&keys(&[bound]), &one.sign(&rsa, &json!({}))), Err(Status::NoMatchingKey));
}

#[test]
fn what_is_no_token_is_refused_with_its_reason() {
    let token = |header: &str, payload: &str| format!("{}.{}.AA", encode(header), encode(payload));
    let claims = |payload: &str| token("{\"alg\":\"ES256\"}", payload);
    let cases = [
        ("", Status::BadFormat),
        ("a.b", Status::BadFormat),
        ("a..b", Status::BadFormat),
        ("a.b.c.d", Status::BadFormat),
        ("!.b.c", Status::HeaderBadBase64),
        ("e30=.e30.AA", Status::HeaderBadBase64),
        (&token("[]", "{}"), Status::HeaderBadJson),
        (&token("{\"alg\":\"ES256\",\"alg\":\"HS256\"}", "{}"), Status::HeaderBadJson),
        (&token("{}", "{}"), Status::HeaderBadAlgorithm),
        (&token("{\"alg\":1}", "{}"), Status::HeaderBadAlgorithm),
        (&token("{\"alg\":\"none\"}", "{}"), Status::UnknownAlgorithm),
        (&token("{\"alg\":\"ES256\",\"kid\":1}", "{}"), Status::HeaderBadKeyId),
        (&format!("{}.!.AA", encode("{\"alg\":\"ES256\"}")), Status::PayloadBadBase64),
        (&claims("nonsense"), Status::PayloadBadJson),
        (&claims("{\"iss\":1}"), Status::IssuerNotString),
        (&claims("{\"sub\":null}"), Status::SubjectNotString),
        (&claims("{\"iat\":\"1\"}"), Status::IssuedAtNotInteger),
        (&claims("{\"nbf\":-1}"), Status::NotBeforeOutOfRange),
        (&claims("{\"exp\":true}"), Status::ExpiryNotInteger),
        (&claims("{\"exp\":1e30}"), Status::ExpiryOutOfRange),
        (&claims("{\"jti\":1}"), Status::IdNotString),
        (&claims("{\"aud\":[1]}"), Status::AudienceNotString),
        (&format!("{}.e30.!", encode("{\"alg\":\"ES256\"}")), Status::SignatureBadBase64),
    ];
    for (text, expected) in cases {
        assert_eq!(Token::parse(text).err(), Some(expected), "{text}");
    }
    assert_eq!(Token::parse(&"a".repeat(200_000)).err(), Some(Status::BadFormat));
}

#[test]
fn a_token_is_valid_between_two_times() {
    let text = |payload: Value| format!("{}.{}.AA", encode("{\"alg\":\"ES256\"}"), encode(payload.to_string()));
    let token = Token::parse(&text(json!({ "nbf": 1000, "exp": 2000.9 }))).unwrap();
    assert_eq!((token.not_before, token.expiry), (1000, 2000));
    for (now, expected) in
        [(939, Err(Status::NotYetValid)), (940, Ok(())), (2060, Ok(())), (2061, Err(Status::Expired))]
    {
        assert_eq!(token.check_time(now, 60), expected, "{now}");
    }
    let forever = Token::parse(&text(json!({}))).unwrap();
    assert_eq!(forever.check_time(u64::MAX, 60), Ok(()));
}

#[test]
fn a_set_without_a_usable_key_is_refused() {
    let weak = json!({ "kty": "RSA", "n": encode([0xc1; 128]), "e": "AQAB" });
    let odd = json!({ "kty": "RSA", "n": encode([0xc1; 256]), "e": encode([5]) });
    let off_curve = json!({ "kty": "EC", "crv": "P-256", "x": encode([1; 32]), "y": encode([1; 32]) });
    let mismatched = json!({ "kty": "EC", "alg": "ES384", "crv": "P-256", "x": encode([1; 32]), "y": encode([1; 32]) });
    let short = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode([1; 31]) });
    let none = json!({ "kty": "oct", "k": "" });
    for key in [weak, odd, off_curve, mismatched, short, none, json!({ "kty": "none" }), json!(1)] {
        let document = json!({ "keys": [key] }).to_string();
        assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(Status::NoValidKeys), "{document}");
    }
    for document in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[]}"] {
        assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(Status::NoValidKeys), "{document}");
    }
    // One bad key does not take a good one with it.
    let good = Signer::ed25519();
    let set = keys(&[json!({ "kty": "RSA" }), good.jwk("a")]);
    assert_eq!(verify(&set, &good.sign(&json!({ "alg": "EdDSA" }), &json!({}))), Ok(()));
    assert_eq!(format!("{set:?}"), "KeySet(1 keys)");
}
