use super::*;

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap()
}

fn key(secret: &[u8]) -> SvidKey {
    SvidKey::derive(secret).unwrap()
}

#[test]
fn whoever_has_the_authoritys_key_has_the_same_key_and_nobody_else() {
    let (now, audiences) = (SystemTime::now(), ["bank".to_owned()]);
    let token = key(b"one").sign(&id(), &audiences, (now, now + LIFETIME)).unwrap();
    let claims = key(b"one").verify(&token, "bank").expect("the same key");
    assert_eq!(claims["sub"], id().to_string());
    assert_eq!(claims["aud"], json!(["bank"]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), LIFETIME.as_secs());
    assert_eq!(key(b"two").verify(&token, "bank"), None);
    assert_ne!(key(b"one").jwk()["kid"], key(b"two").jwk()["kid"]);
    assert!(key(b"one").jwk().get("d").is_none());
}

#[test]
fn tokens_are_for_their_audience_and_their_time() {
    let (now, audiences) = (SystemTime::now(), ["bank".to_owned(), "shop".to_owned()]);
    let key = key(b"one");
    let token = key.sign(&id(), &audiences, (now, now + LIFETIME)).unwrap();
    assert!(key.verify(&token, "shop").is_some());
    assert_eq!(key.verify(&token, "other"), None);
    let ended = key.sign(&id(), &audiences, (now, now - Duration::from_secs(1))).unwrap();
    assert_eq!(key.verify(&ended, "shop"), None);
    let (head, rest) = token.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let forged =
        URL_SAFE_NO_PAD.encode(br#"{"sub":"spiffe://cluster.local/ns/a/sa/b","aud":["shop"],"exp":9999999999}"#);
    assert_eq!(key.verify(&format!("{head}.{forged}.{signature}"), "shop"), None);
    let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
    assert_eq!(key.verify(&format!("{none}.{forged}."), "shop"), None);
}
