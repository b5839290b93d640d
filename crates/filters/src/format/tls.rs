//! Operators over what a TLS session tells.

use meltemi_plan::format::TlsFact;

use super::operators::text;
use super::time;
use crate::info::TlsInfo;

pub(super) fn fact(out: &mut Vec<u8>, tls: &TlsInfo, fact: TlsFact) -> bool {
    let peer = tls.peer.as_deref();
    let list = |out: &mut Vec<u8>, items: &[String]| text(out, Some(&items.join(",")));
    match fact {
        TlsFact::TlsVersion => text(out, tls.version),
        TlsFact::TlsCipher => text(out, tls.cipher.as_deref()),
        TlsFact::PeerUriSan => peer.is_some_and(|p| list(out, &p.uri_sans)),
        TlsFact::PeerDnsSan => peer.is_some_and(|p| list(out, &p.dns_sans)),
        TlsFact::PeerIpSan => {
            peer.is_some_and(|p| list(out, &p.ip_sans.iter().map(ToString::to_string).collect::<Vec<_>>()))
        }
        TlsFact::PeerEmailSan => peer.is_some_and(|p| list(out, &p.email_sans)),
        TlsFact::LocalUriSan => list(out, &tls.local_uri_sans),
        TlsFact::PeerSubject => peer.is_some_and(|p| text(out, Some(&p.subject))),
        TlsFact::LocalSubject => text(out, tls.local_subject.as_deref()),
        TlsFact::PeerIssuer => peer.is_some_and(|p| text(out, Some(&p.issuer))),
        TlsFact::PeerSerial => peer.is_some_and(|p| text(out, Some(&p.serial_hex))),
        TlsFact::PeerFingerprint256 => peer.is_some_and(|p| text(out, Some(&p.sha256_hex()))),
        TlsFact::PeerCert => peer.is_some_and(|p| text(out, Some(&p.url_encoded_pem()))),
        TlsFact::PeerChainFingerprints256 => peer.is_some_and(|p| list(out, &p.chain_sha256_hex())),
        TlsFact::PeerChainSerials => peer.is_some_and(|p| list(out, &p.chain_serials_hex())),
        TlsFact::LocalDnsSan | TlsFact::LocalIpSan | TlsFact::PeerFingerprint1 | TlsFact::TlsSessionId => false,
    }
}

pub(super) fn certificate_time(out: &mut Vec<u8>, tls: &TlsInfo, end: bool, format: Option<&str>) -> bool {
    let Some((from, until)) = tls.peer.as_ref().and_then(|peer| peer.validity()) else { return false };
    time::write(out, if end { until } else { from }, format, false)
}
