//! Sums of texts, in hexadecimal.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};
use gotmpl::{Result, Value};

use super::super::functions::{Function, text};

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("adler32sum", |args| Ok(adler32(text(args, 0)?.as_bytes()).to_string().into())),
    ("sha1sum", |args| sum(args, &SHA1_FOR_LEGACY_USE_ONLY)),
    ("sha256sum", |args| sum(args, &SHA256)),
    ("sha512sum", |args| sum(args, &SHA512)),
];

fn sum(args: &[Value], algorithm: &'static Algorithm) -> Result<Value> {
    let sum = digest(algorithm, text(args, 0)?.as_bytes());
    Ok(sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

/// RFC 1950, section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let next = |(a, b): (u32, u32), byte: &u8| {
        let a = (a + u32::from(*byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    };
    let (a, b) = bytes.iter().fold((1, 0), next);
    (b << 16) | a
}
