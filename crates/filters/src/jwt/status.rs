//! Why a token is refused, in Envoy's words.

use std::fmt;

/// What became of a token that is not accepted. The texts are what clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Missing,
    NotYetValid,
    Expired,
    BadFormat,
    HeaderBadBase64,
    HeaderBadJson,
    HeaderBadAlgorithm,
    UnknownAlgorithm,
    HeaderBadKeyId,
    PayloadBadBase64,
    PayloadBadJson,
    IssuerNotString,
    SubjectNotString,
    IssuedAtNotInteger,
    IssuedAtOutOfRange,
    NotBeforeNotInteger,
    NotBeforeOutOfRange,
    ExpiryNotInteger,
    ExpiryOutOfRange,
    IdNotString,
    AudienceNotString,
    SignatureBadBase64,
    Ed25519SignatureLength,
    UnknownIssuer,
    AudienceNotAllowed,
    VerificationFailed,
    NoValidKeys,
    NoMatchingKey,
    FetchFailed,
}

impl Status {
    /// The number under `code` in `failed_status_in_metadata`, and the text.
    fn row(self) -> (u32, &'static str) {
        match self {
            Self::Missing => (1, "Jwt is missing"),
            Self::NotYetValid => (2, "Jwt not yet valid"),
            Self::Expired => (3, "Jwt is expired"),
            Self::BadFormat => (4, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
            Self::HeaderBadBase64 => (5, "Jwt header is an invalid Base64url encoded"),
            Self::HeaderBadJson => (6, "Jwt header is an invalid JSON"),
            Self::HeaderBadAlgorithm => (7, "Jwt header [alg] field is required and must be a string"),
            Self::UnknownAlgorithm => (8, "Jwt header [alg] is not supported"),
            Self::HeaderBadKeyId => (9, "Jwt header [kid] field is not a string"),
            Self::PayloadBadBase64 => (10, "Jwt payload is an invalid Base64url encoded"),
            Self::PayloadBadJson => (11, "Jwt payload is an invalid JSON"),
            Self::IssuerNotString => (12, "Jwt payload [iss] field is not a string"),
            Self::SubjectNotString => (13, "Jwt payload [sub] field is not a string"),
            Self::IssuedAtNotInteger => (14, "Jwt payload [iat] field is not an integer"),
            Self::IssuedAtOutOfRange => (15, "Jwt payload [iat] field is not a positive 64 bit integer"),
            Self::NotBeforeNotInteger => (16, "Jwt payload [nbf] field is not an integer"),
            Self::NotBeforeOutOfRange => (17, "Jwt payload [nbf] field is not a positive 64 bit integer"),
            Self::ExpiryNotInteger => (18, "Jwt payload [exp] field is not an integer"),
            Self::ExpiryOutOfRange => (19, "Jwt payload [exp] field is not a positive 64 bit integer"),
            Self::IdNotString => (20, "Jwt payload [jti] field is not a string"),
            Self::AudienceNotString => (21, "Jwt payload [aud] field is not a string or string list"),
            Self::SignatureBadBase64 => (22, "Jwt signature is an invalid Base64url encoded"),
            Self::Ed25519SignatureLength => (23, "Jwt ED25519 signature is wrong length"),
            Self::UnknownIssuer => (24, "Jwt issuer is not configured"),
            Self::AudienceNotAllowed => (25, "Audiences in Jwt are not allowed"),
            Self::VerificationFailed => (26, "Jwt verification fails"),
            Self::NoValidKeys => (31, "Jwks doesn't have any valid public key"),
            Self::NoMatchingKey => (32, "Jwks doesn't have key to match kid or alg from Jwt"),
            Self::FetchFailed => (40, "Jwks remote fetch is failed"),
        }
    }

    pub fn code(self) -> u32 {
        self.row().0
    }

    pub fn text(self) -> &'static str {
        self.row().1
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
