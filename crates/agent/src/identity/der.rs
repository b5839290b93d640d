//! DER as SPIFFE's Workload API carries it, one element after the other, and PEM as everything else here takes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

/// As many as a chain or a bundle may have.
const MOST: usize = 64;
const LINE: usize = 64;
/// The identifier of a SEQUENCE, which certificates and revocation lists are.
const SEQUENCE: u8 = 0x30;

/// One PEM block.
pub(super) fn block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    // With room for all of it, so that nothing is left where it grew.
    let mut pem = Zeroizing::new(String::with_capacity(text.len() + text.len() / LINE + 2 * label.len() + 64));
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = others;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// A PEM text of certificates in DER that stand one after the other; an error if there is none.
pub fn certificates(mut der: &[u8]) -> Result<String, String> {
    let mut pem = String::new();
    let mut count = 0;
    while !der.is_empty() {
        let length = length(der).filter(|length| *length <= der.len());
        let (first, rest) = der.split_at(length.ok_or("not a list of certificates in DER")?);
        count += 1;
        if count > MOST {
            return Err(format!("more than {MOST} certificates"));
        }
        pem.push_str(&block("CERTIFICATE", first));
        der = rest;
    }
    if pem.is_empty() { Err("no certificate".to_owned()) } else { Ok(pem) }
}

/// Bytes of the sequence at the beginning (X.690 section 8.1).
fn length(der: &[u8]) -> Option<usize> {
    let [SEQUENCE, first, rest @ ..] = der else { return None };
    let first = usize::from(*first);
    if first < 0x80 {
        return Some(2 + first);
    }
    let digits = rest.get(..first & 0x7f).filter(|digits| (1..=3).contains(&digits.len()))?;
    let content = digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit));
    Some(2 + digits.len() + content)
}

/// The certificates of a PEM text in DER, one after the other.
pub fn of_certificates(pem: &str) -> Result<Vec<u8>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    Ok(found.map_err(|e| e.to_string())?.iter().flat_map(|certificate| certificate.iter().copied()).collect())
}

/// The revocation lists of a PEM text in DER.
pub(super) fn of_lists(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    let lists = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes());
    lists.map(|list| list.map(|list| list.to_vec()).map_err(|e| e.to_string())).collect()
}
