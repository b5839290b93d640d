//! What an agent reads of other agents and of applications, and what an authority reads of what it kept.

use meltemi_agent::identity::{authority, der};
use meltemi_ca::FormerRoot;

/// Certificates in DER, one after the other: what is taken comes back byte by byte.
pub fn der_certificates(data: &[u8]) {
    let Ok(pem) = der::certificates(data) else { return };
    assert_eq!(der::of_certificates(&pem).as_deref(), Ok(data));
}

/// A block of fields of gRPC's C core: nothing but slashes in an authority becomes other bytes, and that once.
pub fn grpc_authority(data: &[u8]) {
    let mut mended = data.to_vec();
    authority::mend(&mut mended);
    let changed = data.iter().zip(&mended).filter(|(before, after)| before != after);
    assert!(data.len() == mended.len() && changed.clone().all(|pair| pair == (&b'%', &b'-')));
    let once = mended.clone();
    authority::mend(&mut mended);
    assert_eq!(once, mended);
}

/// Roots that no longer sign, as they are kept.
pub fn former_roots(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(former) = FormerRoot::from_text(text) else { return };
    assert_eq!(FormerRoot::from_text(&FormerRoot::to_text(&former)).ok(), Some(former));
}
