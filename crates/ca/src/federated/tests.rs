use super::*;
use crate::authority::Authority;
use crate::testing::options;
use meltemi_tls::SpiffeId;
use serde_json::json;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/catalog";

fn token(authority: &Authority) -> String {
    let id: SpiffeId = ID.parse().unwrap();
    authority.sign_token(&id, &["bank".to_owned()]).unwrap()
}

fn bundle(authority: &Authority) -> Value {
    json!({ "keys": authority.token_keys().unwrap() })
}

fn of(pairs: &[(&str, &Authority)]) -> FederatedKeys {
    let keys = FederatedKeys::default();
    let sets =
        pairs.iter().map(|(domain, authority)| (domain.parse().unwrap(), BundleKeys::of_bundle(&bundle(authority))));
    keys.set(sets.collect());
    keys
}

#[test]
fn a_token_is_verified_by_the_keys_of_its_own_trust_domain_alone() {
    let (own, other) = (Authority::self_signed(options()).unwrap(), Authority::self_signed(options()).unwrap());
    let keys = of(&[("cluster.local", &own), ("other.example", &other)]);
    assert_eq!(keys.verify(&token(&own), "bank").unwrap()["sub"], ID);
    assert!(keys.verify(&token(&own), "shop").is_none(), "for another audience");
    assert!(keys.verify(&token(&other), "bank").is_none(), "another domain's authority vouches for ours");
    assert!(keys.verify("nonsense", "bank").is_none());
    assert!(FederatedKeys::default().verify(&token(&own), "bank").is_none());
}

#[test]
fn a_tokens_header_and_begin_are_looked_at() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let point = rcgen::PublicKeyData::der_bytes(&pair);
    let number = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let key = json!({
        "use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": "a", "x": number(&point[1..33]), "y": number(&point[33..]),
    });
    let keys = FederatedKeys::default();
    let set = BundleKeys::of_bundle(&json!({ "keys": [key] }));
    keys.set([("cluster.local".parse().unwrap(), set)].into());
    let signing = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let verified = |change: &dyn Fn(&mut Header, &mut Value)| {
        let mut header = Header { kid: Some("a".to_owned()), ..Header::new(jsonwebtoken::Algorithm::ES256) };
        let mut claims = json!({ "sub": ID, "aud": ["bank"], "exp": now() + 60 });
        change(&mut header, &mut claims);
        keys.verify(&jsonwebtoken::encode(&header, &claims, &signing).unwrap(), "bank").is_some()
    };
    assert!(verified(&|_, _| {}));
    assert!(verified(&|header, _| header.typ = Some("JOSE".to_owned())));
    assert!(!verified(&|header, _| header.typ = Some("at+jwt".to_owned())));
    assert!(!verified(&|header, _| header.kid = Some("b".to_owned())));
    assert!(!verified(&|_, claims| claims["nbf"] = (now() + 3600).into()));
    assert!(!verified(&|_, claims| claims["exp"] = (now() - 1).into()));
    assert!(!verified(&|_, claims| claims["sub"] = "spiffe://other.example/a".into()));
    assert!(!verified(&|_, claims| claims["sub"] = "cluster.local".into()));
}

#[test]
fn of_a_bundle_only_public_keys_for_tokens_are_kept() {
    let good = json!({ "use": "jwt-svid", "kty": "EC", "kid": "a", "crv": "P-256", "x": "", "y": "" });
    let with = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let keys = [
        good.clone(),
        with("d", "secret".into()),
        with("use", "x509-svid".into()),
        with("kid", Value::Null),
        with("kid", "".into()),
        with("kty", "oct".into()),
    ];
    let found = BundleKeys::of_bundle(&json!({ "keys": keys }));
    assert_eq!(found.jwks(), [good.clone(), good.clone()]);
    let mut joined = BundleKeys::of_bundle(&json!({ "keys": [good.clone()] }));
    joined.join(&found);
    assert_eq!(joined.jwks(), std::slice::from_ref(&good));
    let many: Vec<Value> = (0..=MAX_KEYS).map(|n| with("kid", n.to_string().into())).collect();
    assert_eq!(BundleKeys::of_bundle(&json!({ "keys": many })).jwks().len(), MAX_KEYS);
    assert!(BundleKeys::of_bundle(&json!({})).is_empty());
}

#[test]
fn so_many_trust_domains_have_keys_and_no_more() {
    let keys = FederatedKeys::default();
    let changes = keys.subscribe();
    let set = BundleKeys(vec![json!({ "kid": "a" })]);
    let all = |count: usize| (0..count).map(|n| (format!("d{n}").parse().unwrap(), set.clone())).collect();
    keys.set(all(MAX_DOMAINS + 1));
    assert!(changes.has_changed().unwrap());
    assert_eq!(keys.current().len(), MAX_DOMAINS);
    let changes = keys.subscribe();
    keys.set(keys.current().as_ref().clone());
    assert!(!changes.has_changed().unwrap(), "the same again is no change");
    keys.set([("a".parse().unwrap(), BundleKeys::default())].into());
    assert!(keys.current().is_empty());
}
