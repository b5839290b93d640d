//! A refusal, as the CNI specification has it.
//!
//! Owns: the codes of the specification's table, and the JSON that a runtime reads.

use serde_json::{Value, json};

/// The codes of CNI's table of well-known errors; 100 and above are a plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    IncompatibleVersion,
    Environment,
    Io,
    Decode,
    Configuration,
    /// Nothing is wrong with the request; the runtime may try again.
    TryAgainLater,
    /// Settings of the pod's that cannot be put in force.
    PodSettings,
    /// Rules that could not be written, or that are not there.
    Rules,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Kind::IncompatibleVersion => 1,
            Kind::Environment => 4,
            Kind::Io => 5,
            Kind::Decode => 6,
            Kind::Configuration => 7,
            Kind::TryAgainLater => 11,
            Kind::PodSettings => 100,
            Kind::Rules => 101,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into() }
    }

    /// What goes to standard output in place of a result.
    pub fn to_json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.kind.code(), "msg": self.message})
    }
}
