//! Rules for cryptography that an operator sets over all other settings (Istio's `COMPLIANCE_POLICY`).

use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compliance {
    /// TLS 1.2 with ECDHE over P-256 and AES-GCM.
    Fips140_2,
    /// TLS 1.2 and 1.3 with ECDHE over P-256 or P-384 and AES-GCM.
    Fips140_3,
    /// TLS 1.3 with X25519MLKEM768 and AES-GCM.
    PostQuantum,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCompliance(String);

impl fmt::Display for UnknownCompliance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is none of fips-140-2, fips-140-3, pqc", self.0)
    }
}

impl std::error::Error for UnknownCompliance {}

impl FromStr for Compliance {
    type Err = UnknownCompliance;

    fn from_str(text: &str) -> Result<Self, UnknownCompliance> {
        match text {
            "fips-140-2" => Ok(Self::Fips140_2),
            "fips-140-3" => Ok(Self::Fips140_3),
            "pqc" => Ok(Self::PostQuantum),
            other => Err(UnknownCompliance(other.to_owned())),
        }
    }
}
