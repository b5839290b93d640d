//! Key sets as proxies take them.
//!
//! A proxy refuses the whole listener for a key set in which it finds no key that it can read, which would let one issuer close the
//! door for all. So a set without a key that certainly is one gets another, by which no token is verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An RSA key whose private half was never kept.
const NOBODYS: &str = include_str!("nobodys_key.json");

/// A key set that verifies nothing.
pub fn none() -> String {
    json!({ "keys": [nobodys()] }).to_string()
}

/// The key set as it is, or with nobody's key where no other is certain to be taken.
pub fn sound(text: &str) -> String {
    let Ok(mut set) = serde_json::from_str::<Value>(text) else { return none() };
    let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) else { return none() };
    let written = keys.len();
    keys.retain(Value::is_object);
    if keys.iter().any(is_sound) {
        return if keys.len() == written { text.to_owned() } else { set.to_string() };
    }
    keys.push(nobodys());
    set.to_string()
}

fn nobodys() -> Value {
    serde_json::from_str(NOBODYS).unwrap_or_default()
}

/// An RSA key in every part, by the limits of the libraries that read it. Of other kinds only those can tell.
fn is_sound(key: &Value) -> bool {
    let number = |field: &str| URL_SAFE_NO_PAD.decode(key[field].as_str().unwrap_or_default()).unwrap_or_default();
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    let (modulus, exponent) = (number("n"), number("e"));
    let algorithm = match &key["alg"] {
        Value::Null => true,
        Value::String(name) => ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].contains(&name.as_str()),
        _ => false,
    };
    key["kty"] == "RSA"
        && algorithm
        && (key["kid"].is_null() || key["kid"].is_string())
        && (128..=1024).contains(&modulus.len())
        && modulus[0] != 0
        && is_odd(&modulus)
        && (1..=4).contains(&exponent.len())
        && is_odd(&exponent)
        && exponent != [1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_without_a_key_that_is_certainly_one_gets_nobodys() {
        let nobody = nobodys();
        assert!(is_sound(&nobody), "{nobody}");
        let mut other = nobody.clone();
        other["kid"] = json!("mine");
        let good = json!({"keys": [other.clone(), {"kty": "EC"}]}).to_string();
        assert_eq!(sound(&good), good);
        let keys = |text: &str| serde_json::from_str::<Value>(&sound(text)).unwrap()["keys"].clone();
        assert_eq!(keys("{\"keys\":[]}"), json!([nobody]));
        assert_eq!(keys("no JSON"), json!([nobody]));
        assert_eq!(keys("[1]"), json!([nobody]));
        let curve = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"});
        assert_eq!(keys(&json!({"keys": [curve, 7]}).to_string()), json!([curve, nobody]));
        assert_eq!(keys(&json!({"keys": ["x", other]}).to_string()), json!([other]));
        for (field, value) in
            [("n", json!("AQAB")), ("e", json!("AA")), ("e", json!("AQ")), ("alg", json!("HS256")), ("kid", json!(1))]
        {
            let mut broken = other.clone();
            broken[field] = value;
            assert_eq!(keys(&json!({"keys": [broken]}).to_string()), json!([broken, nobody]), "{field}");
        }
    }
}
