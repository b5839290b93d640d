//! The signature algorithms of RFC 7518 and RFC 8037.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    self, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es(Curve),
    Hs(Hash),
    Rs(Hash),
    Ps(Hash),
    EdDsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Each with the one hash that signatures over it use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

/// Every name, in the order of the types above.
const NAMES: [(&str, Algorithm); 13] = [
    ("ES256", Algorithm::Es(Curve::P256)),
    ("ES384", Algorithm::Es(Curve::P384)),
    ("ES512", Algorithm::Es(Curve::P521)),
    ("HS256", Algorithm::Hs(Hash::Sha256)),
    ("HS384", Algorithm::Hs(Hash::Sha384)),
    ("HS512", Algorithm::Hs(Hash::Sha512)),
    ("RS256", Algorithm::Rs(Hash::Sha256)),
    ("RS384", Algorithm::Rs(Hash::Sha384)),
    ("RS512", Algorithm::Rs(Hash::Sha512)),
    ("PS256", Algorithm::Ps(Hash::Sha256)),
    ("PS384", Algorithm::Ps(Hash::Sha384)),
    ("PS512", Algorithm::Ps(Hash::Sha512)),
    ("EdDSA", Algorithm::EdDsa),
];

impl Algorithm {
    pub fn of(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// How an RSA key is used; `None` if it is not.
    pub fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs(Hash::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
            Self::Rs(Hash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
            Self::Rs(Hash::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
            Self::Ps(Hash::Sha256) => &RSA_PSS_2048_8192_SHA256,
            Self::Ps(Hash::Sha384) => &RSA_PSS_2048_8192_SHA384,
            Self::Ps(Hash::Sha512) => &RSA_PSS_2048_8192_SHA512,
            Self::Es(_) | Self::Hs(_) | Self::EdDsa => return None,
        })
    }
}

impl Hash {
    pub fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

impl Curve {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// Bytes of one coordinate.
    pub fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    pub fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }
}
