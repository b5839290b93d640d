//! A set of keys, and the verification of a token by them.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RsaPublicKeyComponents};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Curve};
use super::json;
use super::status::Status;
use super::token::Token;

/// Bytes of a document.
const MOST_BYTES: usize = 1024 * 1024;
/// Keys of a set.
const MOST_KEYS: usize = 512;
/// Of an RSA modulus, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const ED25519_SIGNATURE_BYTES: usize = 64;

/// Some issuers pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A JWK set: the keys that we can use.
pub struct KeySet(Vec<Key>);

struct Key {
    /// Empty: of any token.
    id: String,
    /// Empty: by any algorithm of its type.
    algorithm: String,
    material: Material,
}

enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Ec(Curve, ParsedPublicKey),
    Ed25519(ParsedPublicKey),
    Secret(Vec<u8>),
}

/// Without its keys: some are secret.
impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({} keys)", self.0.len())
    }
}

impl KeySet {
    /// From a JSON document. Keys of types that nobody here knows are passed over; at least one must remain.
    pub fn parse(document: &[u8]) -> Result<Self, Status> {
        if document.len() > MOST_BYTES {
            return Err(Status::NoValidKeys);
        }
        let fields = json::object(document).ok_or(Status::NoValidKeys)?;
        let Some(Value::Array(list)) = fields.get("keys") else { return Err(Status::NoValidKeys) };
        let known = list.iter().filter_map(Value::as_object).filter_map(key);
        let keys: Vec<Key> = known.take(MOST_KEYS).collect();
        if keys.is_empty() { Err(Status::NoValidKeys) } else { Ok(Self(keys)) }
    }

    /// Whether one of the keys signed the token.
    pub fn verify(&self, token: &Token) -> Result<(), Status> {
        let mut outcome = Status::NoMatchingKey;
        let fits = |key: &&Key| {
            let same_id = token.key_id.is_empty() || key.id.is_empty() || key.id == token.key_id;
            let same_algorithm = key.algorithm.is_empty() || Algorithm::of(&key.algorithm) == Some(token.algorithm);
            same_id && same_algorithm
        };
        for key in self.0.iter().filter(fits) {
            outcome = match key.material.verify(token) {
                Ok(()) => return Ok(()),
                // It will be as long for the next key.
                Err(Status::Ed25519SignatureLength) => return Err(Status::Ed25519SignatureLength),
                Err(status) => status,
            };
        }
        Err(outcome)
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn bytes(fields: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    BASE64.decode(text(fields, name)).ok().filter(|bytes| !bytes.is_empty())
}

fn key(fields: &Map<String, Value>) -> Option<Key> {
    let algorithm = text(fields, "alg");
    let material = match text(fields, "kty") {
        "RSA" if algorithm.is_empty() || algorithm.starts_with("RS") || algorithm.starts_with("PS") => rsa(fields)?,
        "EC" => ec(fields, algorithm)?,
        "OKP" if matches!(algorithm, "" | "EdDSA") && text(fields, "crv") == "Ed25519" => {
            Material::Ed25519(ParsedPublicKey::new(&ED25519, bytes(fields, "x")?).ok()?)
        }
        "oct" if matches!(algorithm, "" | "HS256" | "HS384" | "HS512") => Material::Secret(bytes(fields, "k")?),
        _ => return None,
    };
    Some(Key { id: text(fields, "kid").to_owned(), algorithm: algorithm.to_owned(), material })
}

fn rsa(fields: &Map<String, Value>) -> Option<Material> {
    let number = |name: &str| {
        let bytes = bytes(fields, name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    };
    let (n, e) = (number("n")?, number("e")?);
    // The exponents in use; others are mistakes or attacks.
    let usual = matches!(e[..], [3] | [1, 0, 1]);
    (RSA_BYTES.contains(&n.len()) && usual).then_some(Material::Rsa(RsaPublicKeyComponents { n, e }))
}

fn ec(fields: &Map<String, Value>, algorithm: &str) -> Option<Material> {
    let by_algorithm = match Algorithm::of(algorithm) {
        Some(Algorithm::Es(curve)) => Some(curve),
        Some(_) => return None,
        None if algorithm.is_empty() => None,
        None => return None,
    };
    let by_name = match fields.get("crv") {
        None => None,
        Some(name) => Some(Curve::of(name.as_str()?)?),
    };
    let curve = match (by_algorithm, by_name) {
        (Some(one), Some(other)) if one != other => return None,
        (one, other) => one.or(other).unwrap_or(Curve::P256),
    };
    let mut point = vec![UNCOMPRESSED];
    for name in ["x", "y"] {
        let coordinate = bytes(fields, name)?;
        let missing = curve.coordinate_bytes().checked_sub(coordinate.len())?;
        point.resize(point.len() + missing, 0);
        point.extend(coordinate);
    }
    ParsedPublicKey::new(curve.verification(), point).ok().map(|key| Material::Ec(curve, key))
}

/// The first byte of a point of two coordinates (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

impl Material {
    fn verify(&self, token: &Token) -> Result<(), Status> {
        let (signed, signature) = (token.signed(), token.signature());
        let fine = match (self, token.algorithm) {
            (Self::Rsa(key), algorithm) => {
                algorithm.rsa().is_some_and(|parameters| key.verify(parameters, signed, signature).is_ok())
            }
            (Self::Ec(curve, key), Algorithm::Es(used)) => used == *curve && key.verify_sig(signed, signature).is_ok(),
            (Self::Ed25519(_), Algorithm::EdDsa) if signature.len() != ED25519_SIGNATURE_BYTES => {
                return Err(Status::Ed25519SignatureLength);
            }
            (Self::Ed25519(key), Algorithm::EdDsa) => key.verify_sig(signed, signature).is_ok(),
            (Self::Secret(secret), Algorithm::Hs(hash)) => {
                let tag = hmac::sign(&hmac::Key::new(hash.hmac(), secret), signed);
                constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok()
            }
            (Self::Ec(..) | Self::Ed25519(_) | Self::Secret(_), _) => false,
        };
        if fine { Ok(()) } else { Err(Status::VerificationFailed) }
    }
}
