use super::*;
use crate::testing::{Ca, revocations};
use meltemi_tls::TrustAnchors;
use rcgen::KeyPair;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ALL: Progress = Progress { connected: 3, holding: 3 };
const SOME: Progress = Progress { connected: 3, holding: 2 };

fn roots(pem: &str) -> Vec<CaCertificate> {
    CaCertificate::all("roots", pem).unwrap()
}

fn held(signer: &Ca, bundle: &str, now: SystemTime) -> Held {
    Held { signer: signer.signer(bundle, now), roots: roots(bundle), revocations: Revocations::default() }
}

/// What a workload holds: a chain with its end, and the roots that it learnt last.
struct Workload {
    chain: String,
    end: SystemTime,
    roots: String,
}

impl Workload {
    fn new(rotation: &Rotation, now: SystemTime, lifetime: Duration) -> Self {
        let mut workload = Self { chain: String::new(), end: now, roots: String::new() };
        workload.renew(rotation, now, lifetime);
        workload
    }

    fn renew(&mut self, rotation: &Rotation, now: SystemTime, lifetime: Duration) {
        let id = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let sans = vec![crate::signer::uri(&id).unwrap()];
        self.end = now + lifetime;
        self.chain = rotation.signer().issue(&KeyPair::generate().unwrap(), sans, (now, self.end)).unwrap().concat();
        self.learn(rotation);
    }

    fn learn(&mut self, rotation: &Rotation) {
        self.roots = crate::certificate::bundle(&rotation.roots());
    }

    fn trusts(&self, other: &Self, now: SystemTime) -> bool {
        let anchors = TrustAnchors::from_pem(self.roots.as_bytes(), &[]).unwrap();
        anchors.verify(other.chain.as_bytes(), now).is_ok()
    }
}

fn assert_all_trust_all(workloads: &[Workload], now: SystemTime, at: &str) {
    for (i, client) in workloads.iter().enumerate() {
        for (j, server) in workloads.iter().enumerate() {
            assert!(client.trusts(server, now), "{at}: {i} does not trust {j}");
        }
    }
}

#[test]
fn no_two_workloads_of_any_stage_ever_distrust_each_other() {
    let start = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let pace = Pace { staged: true, least: MINUTE, longest: 2 * DAY };
    let mut rotation = Rotation::new(held(&old, &old.pem(), start), pace, start);
    assert_eq!(rotation.stage(), Stage::Single);
    // One that learns roots with each certificate alone, and one that hears of them at once.
    let mut workloads = vec![Workload::new(&rotation, start, DAY), Workload::new(&rotation, start, DAY)];
    rotation.follow(held(&new, &new.pem(), start), start).unwrap();
    let mut seen = vec![rotation.stage()];
    for hour in 1..100 {
        let now = start + HOUR * hour;
        workloads[1].learn(&rotation);
        rotation.advance(now, SOME);
        for (i, workload) in workloads.iter_mut().enumerate() {
            // Each renews at half its life, not at the same time.
            if workload.end.duration_since(now).unwrap() <= DAY / 2 - HOUR * (3 * i as u32) {
                workload.renew(&rotation, now, DAY);
            }
        }
        assert_all_trust_all(&workloads, now, &format!("hour {hour}, {:?}", rotation.stage()));
        if seen.last() != Some(&rotation.stage()) {
            seen.push(rotation.stage());
        }
    }
    assert_eq!(seen, [Stage::Distributing, Stage::Signing, Stage::Single]);
    assert_eq!(rotation.roots(), roots(&new.pem()), "the old root is retired");
}

#[test]
fn a_root_that_only_signs_at_once_is_distrusted_by_those_who_have_not_heard_of_it() {
    // What the stages are for; were this to pass without them, the test above could not fail.
    let now = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let pace = Pace { staged: false, ..Pace::default() };
    let mut rotation = Rotation::new(held(&old, &old.pem(), now), pace, now);
    let early = Workload::new(&rotation, now, DAY);
    rotation.follow(held(&new, &new.pem(), now), now).unwrap();
    assert_eq!((rotation.stage(), rotation.roots()), (Stage::Single, roots(&new.pem())));
    let late = Workload::new(&rotation, now, DAY);
    assert!(!early.trusts(&late, now) && !late.trusts(&early, now));
}

#[test]
fn a_new_root_signs_when_all_proxies_have_it_but_not_before_the_least_time() {
    let start = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let begin = || {
        let pace = Pace { staged: true, least: MINUTE, longest: DAY };
        let mut rotation = Rotation::new(held(&old, &old.pem(), start), pace, start);
        rotation.follow(held(&new, &new.pem(), start), start).unwrap();
        rotation
    };
    for (age, progress, expected) in [
        (Duration::ZERO, ALL, false),
        (MINUTE / 2, ALL, false),
        (MINUTE, SOME, false),
        (MINUTE, ALL, true),
        (MINUTE, Progress::default(), true),
        (DAY - MINUTE, SOME, false),
        (DAY, SOME, true),
    ] {
        let mut rotation = begin();
        assert_eq!(rotation.advance(start + age, progress), expected, "{age:?} {progress:?}");
        let signs = rotation.signer().certificate() == &roots(&new.pem())[0];
        assert_eq!(signs, expected, "{age:?} {progress:?}");
        assert_eq!(rotation.roots().len(), 2, "the old root stays");
    }
}

#[test]
fn the_old_root_is_trusted_until_the_last_certificate_under_it_has_ended() {
    let start = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let pace = Pace { staged: true, least: MINUTE, longest: DAY };
    let mut rotation = Rotation::new(held(&old, &old.pem(), start), pace, start);
    Workload::new(&rotation, start, 30 * DAY);
    rotation.follow(held(&new, &new.pem(), start), start).unwrap();
    rotation.advance(start + DAY, ALL);
    assert_eq!(rotation.stage(), Stage::Signing);
    for (day, trusted) in [(2, 2), (29, 2), (31, 1)] {
        rotation.advance(start + DAY * day, ALL);
        assert_eq!(rotation.roots().len(), trusted, "day {day}");
    }
    assert_eq!(rotation.stage(), Stage::Single);
}

#[test]
fn an_intermediate_under_a_known_root_signs_at_once() {
    let now = SystemTime::now();
    let root = Ca::root("root");
    let (first, second) = (root.intermediate("first"), root.intermediate("second"));
    let mut rotation = Rotation::new(held(&first, &root.pem(), now), Pace::default(), now);
    let early = Workload::new(&rotation, now, DAY);
    rotation.follow(held(&second, &root.pem(), now), now).unwrap();
    assert_eq!(rotation.signer().certificate(), &roots(&second.pem())[0]);
    assert_eq!(rotation.stage(), Stage::Single);
    let late = Workload::new(&rotation, now, DAY);
    assert_all_trust_all(&[early, late], now, "intermediates");
}

#[test]
fn a_root_that_is_distributed_beforehand_signs_at_once_and_the_old_one_may_go_then() {
    let start = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let both = format!("{}{}", old.pem(), new.pem());
    let pace = Pace { staged: true, least: MINUTE, longest: DAY };
    let mut rotation = Rotation::new(held(&old, &old.pem(), start), pace, start);
    let mut early = Workload::new(&rotation, start, DAY);
    rotation.follow(held(&old, &both, start), start).unwrap();
    assert_eq!(rotation.stage(), Stage::Distributing);
    early.learn(&rotation);
    rotation.advance(start + MINUTE, ALL);
    assert_eq!(rotation.stage(), Stage::Single);
    let now = start + HOUR;
    rotation.follow(held(&new, &new.pem(), now), now).unwrap();
    assert_eq!(rotation.signer().certificate(), &roots(&new.pem())[0]);
    assert_eq!(rotation.stage(), Stage::Signing);
    let late = Workload::new(&rotation, now, DAY);
    assert_all_trust_all(&[early, late], now, "prepared");
}

#[test]
fn a_change_that_is_called_off_leaves_what_was() {
    let now = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let mut rotation = Rotation::new(held(&old, &old.pem(), now), Pace::default(), now);
    rotation.follow(held(&new, &new.pem(), now), now).unwrap();
    assert_eq!((rotation.stage(), rotation.roots().len()), (Stage::Distributing, 2));
    rotation.follow(held(&old, &old.pem(), now), now).unwrap();
    assert_eq!((rotation.stage(), rotation.roots()), (Stage::Single, roots(&old.pem())));
    assert!(!rotation.advance(now + 2 * DAY, ALL));
    assert_eq!(rotation.signer().certificate(), &roots(&old.pem())[0]);
}

#[test]
fn a_second_change_in_the_midst_of_the_first_keeps_every_root_that_is_needed() {
    let start = SystemTime::now();
    let (first, second, third) = (Ca::root("first"), Ca::root("second"), Ca::root("third"));
    let pace = Pace { staged: true, least: MINUTE, longest: DAY };
    let mut rotation = Rotation::new(held(&first, &first.pem(), start), pace, start);
    let mut workloads = vec![Workload::new(&rotation, start, 4 * DAY)];
    rotation.follow(held(&second, &second.pem(), start), start).unwrap();
    workloads[0].learn(&rotation);
    rotation.advance(start + HOUR, ALL);
    workloads.push(Workload::new(&rotation, start + HOUR, 4 * DAY));
    rotation.follow(held(&third, &third.pem(), start + HOUR), start + HOUR).unwrap();
    assert_eq!(rotation.roots().len(), 3);
    workloads.iter_mut().for_each(|workload| workload.learn(&rotation));
    let now = start + 2 * HOUR;
    rotation.advance(now, ALL);
    workloads.push(Workload::new(&rotation, now, 4 * DAY));
    assert_all_trust_all(&workloads, now, "three at once");
    rotation.advance(now + 5 * DAY, ALL);
    assert_eq!(rotation.roots(), roots(&third.pem()));
}

#[test]
fn more_changes_than_can_be_kept_apart_are_refused() {
    let now = SystemTime::now();
    let old = Ca::root("old");
    let mut rotation = Rotation::new(held(&old, &old.pem(), now), Pace::default(), now);
    let many: String = (0..MOST).map(|i| Ca::root(&i.to_string()).pem()).collect();
    let refused = rotation.follow(held(&old, &format!("{}{many}", old.pem()), now), now);
    assert!(matches!(refused, Err(AuthorityError::Crowded)));
    assert_eq!(rotation.roots(), roots(&old.pem()));
}

#[test]
fn revocation_lists_cover_former_signers_while_their_certificates_live() {
    let start = SystemTime::now();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let lists = |ca: &Ca| Revocations::from_pem(&revocations(ca, start + 90 * DAY), start).unwrap();
    let with = |ca: &Ca, lists: Revocations| Held { revocations: lists, ..held(ca, &ca.pem(), start) };
    let pace = Pace { staged: true, least: MINUTE, longest: DAY };
    let newest = lists(&new);
    let mut rotation = Rotation::new(with(&old, lists(&old)), pace, start);
    Workload::new(&rotation, start, DAY);
    rotation.follow(with(&new, newest.clone()), start).unwrap();
    for (at, stage, count) in [(HOUR, Stage::Signing, 2), (2 * DAY, Stage::Single, 1)] {
        rotation.advance(start + at, ALL);
        assert_eq!((rotation.stage(), rotation.revocations().pem().matches("BEGIN").count()), (stage, count));
    }
    assert_eq!(rotation.revocations(), &newest);

    // Where the old authority never had one, certificates of its would be taken by nobody.
    let mut rotation = Rotation::new(held(&old, &old.pem(), start), pace, start);
    let refused = rotation.follow(with(&new, newest), start).unwrap_err().to_string();
    assert!(refused.contains("there is none of CaCertificate(CN=old"), "{refused}");
    assert_eq!((rotation.stage(), rotation.roots()), (Stage::Single, roots(&old.pem())));
}
