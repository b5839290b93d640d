//! One token: its parts, and the claims that are looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;
use super::status::Status;

/// Bytes of a token; more than any list of headers may have.
const MOST: usize = 96 * 1024;

/// A token in compact form, parsed but not verified.
#[derive(Clone)]
pub struct Token {
    text: Box<str>,
    /// Where the signed part ends.
    signed: usize,
    /// Where the payload begins.
    payload_at: usize,
    signature: Vec<u8>,
    pub header: Map<String, Value>,
    pub payload: Map<String, Value>,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: String,
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
    /// Seconds since 1970; 0 without the claim.
    pub not_before: u64,
    /// Seconds since 1970; 0 without the claim.
    pub expiry: u64,
}

/// Without anything that could be used as a token.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("algorithm", &self.algorithm)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Token {
    pub fn parse(text: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split('.').take(4).collect();
        let [header, payload, signature] = *parts else { return Err(Status::BadFormat) };
        if text.len() > MOST || parts.iter().any(|part| part.is_empty()) {
            return Err(Status::BadFormat);
        }
        let decode = |part: &str, status| URL_SAFE_NO_PAD.decode(part).map_err(|_| status);
        let fields = json::object(&decode(header, Status::HeaderBadBase64)?).ok_or(Status::HeaderBadJson)?;
        let Some(Value::String(name)) = fields.get("alg") else { return Err(Status::HeaderBadAlgorithm) };
        let algorithm = Algorithm::of(name).ok_or(Status::UnknownAlgorithm)?;
        let key_id = string(&fields, "kid", Status::HeaderBadKeyId)?;
        let claims = json::object(&decode(payload, Status::PayloadBadBase64)?).ok_or(Status::PayloadBadJson)?;
        let issuer = string(&claims, "iss", Status::IssuerNotString)?;
        let subject = string(&claims, "sub", Status::SubjectNotString)?;
        seconds(&claims, "iat", Status::IssuedAtNotInteger, Status::IssuedAtOutOfRange)?;
        let not_before = seconds(&claims, "nbf", Status::NotBeforeNotInteger, Status::NotBeforeOutOfRange)?;
        let expiry = seconds(&claims, "exp", Status::ExpiryNotInteger, Status::ExpiryOutOfRange)?;
        string(&claims, "jti", Status::IdNotString)?;
        let audiences = audiences(&claims)?;
        let signature = decode(signature, Status::SignatureBadBase64)?;
        Ok(Self {
            text: text.into(),
            signed: header.len() + 1 + payload.len(),
            payload_at: header.len() + 1,
            signature,
            header: fields,
            payload: claims,
            algorithm,
            key_id,
            issuer,
            subject,
            audiences,
            not_before,
            expiry,
        })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// As it was sent.
    pub fn encoded_payload(&self) -> &str {
        &self.text[self.payload_at..self.signed]
    }

    pub(super) fn signed(&self) -> &[u8] {
        &self.text.as_bytes()[..self.signed]
    }

    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether it is valid at a time in seconds since 1970, give or take the skew.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Status> {
        if now.saturating_add(skew) < self.not_before {
            return Err(Status::NotYetValid);
        }
        if self.expiry != 0 && now > self.expiry.saturating_add(skew) {
            return Err(Status::Expired);
        }
        Ok(())
    }

    /// The claim at a path.
    pub fn claim<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.payload.get(first.as_ref())?, |value, key| value.get(key.as_ref()))
    }
}

/// Empty where there is none.
fn string(fields: &Map<String, Value>, name: &str, wrong: Status) -> Result<String, Status> {
    match fields.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong),
    }
}

fn seconds(fields: &Map<String, Value>, name: &str, wrong: Status, range: Status) -> Result<u64, Status> {
    let Some(value) = fields.get(name) else { return Ok(0) };
    if let Some(whole) = value.as_u64() {
        return Ok(whole);
    }
    let number = value.as_f64().ok_or(wrong)?;
    // A date with a fraction (RFC 7519 section 2) counts by its whole seconds.
    format!("{:.0}", number.trunc()).parse().map_err(|_| range)
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Status> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(Status::AudienceNotString);
            list.iter().map(text).collect()
        }
        Some(_) => Err(Status::AudienceNotString),
    }
}
