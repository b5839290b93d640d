use super::*;
use crate::tests::{Authority, CLIENT, SERVER, handshake, pair};
use crate::trust::{TrustAnchors, TrustSlot};
use crate::{CertSlot, Identity};
use rcgen::{CertificateParams, KeyPair, SanType};
use std::time::SystemTime;

const HOUR: Duration = Duration::from_secs(3600);

fn at(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap())
}

/// A client's identity that ends so long after now.
fn ending(ca: &Authority, life: Duration) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(CLIENT.try_into().unwrap())];
    params.not_after = (SystemTime::now() + life).into();
    let leaf = params.signed_by(&key, &ca.0).unwrap();
    Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

fn question(identity: &Identity, peer: Peer) -> Question {
    Question::new(&identity.chain()[0], &identity.chain()[1..], peer).unwrap()
}

/// Keeps what this identity shows, at a time.
fn keep(verified: &Verified, identity: &Identity, now: SystemTime) {
    let peer = PeerInfo::of_chain(identity.chain()).map(Arc::new).unwrap();
    let chain: Vec<_> = identity.chain().iter().collect();
    verified.keep(question(identity, Peer::Client), &chain, at(now), &peer);
}

#[test]
fn an_answer_holds_from_when_it_was_given_until_the_chain_ends() {
    let (ca, now) = (Authority::new("root"), SystemTime::now());
    let identity = ending(&ca, HOUR);
    let verified = Verified::default();
    keep(&verified, &identity, now);
    for (time, known) in [(now, true), (now + HOUR / 2, true), (now + 2 * HOUR, false), (now - HOUR, false)] {
        let found = verified.find(&question(&identity, Peer::Client), at(time));
        assert_eq!(found.is_some(), known, "{time:?}");
    }
    assert!(verified.find(&question(&identity, Peer::Server), at(now)).is_none(), "for another use");
    assert!(verified.find(&question(&ending(&ca, HOUR), Peer::Client), at(now)).is_none(), "another of the same name");
}

#[test]
fn a_chain_is_told_from_the_same_certificates_in_another_order_or_number() {
    let ca = Authority::new("root");
    let (a, b) = (ca.identity(CLIENT), ca.identity(SERVER));
    let (a, b) = (&a.chain()[0], &b.chain()[0]);
    let all = [(a, vec![]), (b, vec![]), (a, vec![b.clone()]), (b, vec![a.clone()]), (a, vec![b.clone(), b.clone()])];
    let asked: std::collections::HashSet<_> =
        all.iter().map(|(leaf, rest)| Question::new(leaf, rest, Peer::Client).unwrap()).collect();
    assert_eq!(asked.len(), all.len());
}

#[test]
fn what_is_kept_is_bounded() {
    let (ca, now) = (Authority::new("root"), SystemTime::now());
    let identity = ca.identity(CLIENT);
    let leaf = &identity.chain()[0];
    let long = vec![leaf.clone(); CERTIFICATES];
    assert!(Question::new(leaf, &long, Peer::Client).is_none(), "certificates");
    let large = [CertificateDer::from(vec![0; BYTES])];
    assert!(Question::new(leaf, &large, Peer::Client).is_none(), "bytes");
    let verified = Verified::default();
    let peer = Arc::new(PeerInfo::default());
    for number in 0..2 * CHAINS {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        verified.keep(Question(bytes), &[leaf], at(now), &peer);
        assert!(verified.lock().len() <= CHAINS);
    }
    keep(&verified, &identity, now);
    assert!(verified.find(&question(&identity, Peer::Client), at(now)).is_some(), "the latest is there");
}

#[test]
fn connections_of_one_peer_share_what_is_known_of_it() {
    let ca = Authority::new("root");
    let client = ca.identity(CLIENT);
    let shown = client.chain().to_vec();
    let (server, client) =
        pair(CertSlot::new(ca.identity(SERVER)), TrustSlot::new(ca.anchors()), CertSlot::new(client));
    handshake(&server, &client).unwrap();
    let (first, second) = (server.peer(&shown).unwrap(), server.peer(&shown).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.spiffe(), Some(CLIENT));
    // A server's certificate is not a client's.
    let (first, second) = (client.peer(&shown).unwrap(), client.peer(&shown).unwrap());
    assert!(!Arc::ptr_eq(&first, &second));
}

#[test]
fn other_anchors_begin_with_nothing() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let trust = TrustSlot::new(ca.anchors());
    let (server_slot, client_slot) = (CertSlot::new(ca.identity(SERVER)), CertSlot::new(ca.identity(CLIENT)));
    let fresh = || pair(server_slot.clone(), trust.clone(), client_slot.clone());
    let (server, client) = fresh();
    handshake(&server, &client).unwrap();
    trust.set(other.anchors());
    // A fresh context, so that no session is resumed.
    let (server, client) = fresh();
    assert!(handshake(&server, &client).is_err(), "verified before, by anchors that are gone");
}

#[test]
fn beside_revocation_lists_nothing_is_kept() {
    let ca = Authority::new("root");
    let list = crate::trust::tests::revocations(&ca, 1);
    let trust = TrustSlot::new(TrustAnchors::from_pem(ca.0.pem().as_bytes(), list.as_bytes()).unwrap());
    let client = ca.identity(CLIENT);
    let shown = client.chain().to_vec();
    let (server, client) = pair(CertSlot::new(ca.identity(SERVER)), trust.clone(), CertSlot::new(client));
    handshake(&server, &client).unwrap();
    assert!(trust.known(&shown, Peer::Client).is_none());
}
