use meltemi_ca::{AuthorityOptions, Material, Pace, Progress, Stage};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Always near the end of its root, and looked at whenever it is asked.
fn options() -> AuthorityOptions {
    AuthorityOptions {
        root_grace_percent: 100,
        root_check_interval: Duration::from_nanos(1),
        pace: Pace { staged: true, least: Duration::ZERO, longest: 60 * MINUTE },
        ..AuthorityOptions::new("cluster.local".parse().unwrap())
    }
}

struct Replica {
    authority: Authority,
    change: Change,
}

impl Replica {
    fn new(name: &str, secret: &Secret) -> Self {
        let material = Material::from_files(&files(secret)).unwrap();
        Self { authority: Authority::supplied(&material, options()).unwrap(), change: Change::new(name) }
    }

    /// Takes what the Secret holds, of which so many of two proxies have heard.
    fn look(&self, secret: &Secret, holding: usize) {
        self.authority.supply(Material::from_files(&files(secret)).unwrap());
        self.authority.look(SystemTime::now(), Progress { connected: 2, holding }).unwrap();
        // What was new a moment ago is judged by what came of it.
        self.authority.look(SystemTime::now(), Progress { connected: 2, holding }).unwrap();
    }

    fn turn(&mut self, secret: &Secret, leads: bool, now: Instant) -> Option<Secret> {
        self.change.turn(secret, &self.authority, (leads, now)).unwrap()
    }
}

fn first() -> Secret {
    holding(Secret::default(), Material::self_signed(&options()).unwrap().to_files())
}

#[test]
fn the_leader_makes_another_root_and_has_it_sign_when_no_replica_waits_any_longer() {
    let secret = first();
    let (mut leader, mut other) = (Replica::new("leader", &secret), Replica::new("other", &secret));
    let mut now = Instant::now();
    assert!(other.turn(&secret, false, now).is_none(), "only the leader begins");
    let secret = leader.turn(&secret, true, now).expect("another root");
    assert!(files(&secret).contains_key(NEXT_CERTIFICATE));
    leader.look(&secret, 2);
    other.look(&secret, 1);
    let secret = other.turn(&secret, false, now).expect("a note");
    assert_eq!(notes(&secret), [("other".to_owned(), 0)].into());
    now += MINUTE;
    // Heard of only now, whenever it was made.
    assert!(leader.turn(&secret, true, now).is_none());
    let secret = other.turn(&secret, false, now).expect("it says so again");
    assert_eq!(notes(&secret)["other"], 1);
    now += MINUTE;
    assert!(leader.turn(&secret, true, now).is_none());
    other.look(&secret, 2);
    let secret = other.turn(&secret, false, now).expect("it waits no longer");
    assert!(notes(&secret).is_empty());
    let secret = leader.turn(&secret, true, now).expect("it signs");
    assert!(!files(&secret).contains_key(NEXT_CERTIFICATE));
    for replica in [&leader, &other] {
        replica.look(&secret, 2);
        assert_eq!(replica.authority.stage(), Stage::Signing);
    }
    assert_eq!(leader.authority.status().signer, other.authority.status().signer);
}

#[test]
fn a_replica_that_is_gone_is_not_waited_for_and_others_have_a_moment_to_speak() {
    let secret = first();
    let (mut leader, mut other) = (Replica::new("leader", &secret), Replica::new("other", &secret));
    let now = Instant::now();
    let secret = leader.turn(&secret, true, now).expect("another root");
    leader.look(&secret, 2);
    other.look(&secret, 0);
    assert!(leader.turn(&secret, true, now).is_none(), "others have not had the time to hear of it");
    let secret = other.turn(&secret, false, now).expect("a note");
    assert!(leader.turn(&secret, true, now + HEARING).is_none());
    assert!(leader.turn(&secret, true, now + HEARING + GONE).is_some());
}

#[test]
fn notes_of_many_replicas_do_not_grow_and_what_is_no_note_is_none() {
    let secret = first();
    let mut leader = Replica::new("leader", &secret);
    let now = Instant::now();
    let secret = leader.turn(&secret, true, now).expect("another root");
    let mut other = Replica::new("other", &secret);
    let full = noted(secret.clone(), &(0..MOST).map(|number| (number.to_string(), 0)).collect());
    assert!(other.turn(&full, false, now).is_none());
    let mut broken = noted(secret, &[("x".to_owned(), 1)].into());
    broken.metadata.annotations.as_mut().unwrap().insert(AWAITED_BY.to_owned(), "[1]".to_owned());
    assert!(notes(&broken).is_empty());
}
