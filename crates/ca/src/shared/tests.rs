use super::*;
use crate::authority::{Authority, AuthorityOptions};
use crate::rotation::{Pace, Progress, Stage};
use crate::testing::{Ca, options};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const REST: View = View { is_due: false, is_distributed: false, is_awaited: false };

fn made() -> Result<Material, AuthorityError> {
    Material::self_signed(&options())
}

fn names(files: &Files) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

#[test]
fn another_root_is_kept_beside_the_one_that_signs_until_all_have_it() {
    let first = made().unwrap().to_files();
    assert_eq!(step(&first, REST, made).unwrap(), None);
    let both = step(&first, View { is_due: true, ..REST }, made).unwrap().expect("another root");
    assert_eq!(names(&both), ["ca-cert.pem", "ca-key.pem", NEXT_CERTIFICATE, NEXT_KEY, "root-cert.pem"]);
    assert_eq!((&both["ca-cert.pem"], &both["ca-key.pem"]), (&first["ca-cert.pem"], &first["ca-key.pem"]));
    for view in [REST, View { is_due: true, ..REST }, View { is_distributed: true, is_awaited: true, ..REST }] {
        assert_eq!(step(&both, view, made).unwrap(), None, "{view:?}");
    }
    let second = step(&both, View { is_distributed: true, ..REST }, made).unwrap().expect("it signs");
    assert_eq!(names(&second), ["ca-cert.pem", "ca-key.pem", "root-cert.pem"]);
    assert_eq!(second["ca-cert.pem"], both[NEXT_CERTIFICATE]);
    assert_eq!(second["ca-key.pem"], both[NEXT_KEY]);
    let root = CaCertificate::all("root", std::str::from_utf8(&second["root-cert.pem"]).unwrap()).unwrap();
    assert_eq!(root, CaCertificate::all("root", std::str::from_utf8(&second["ca-cert.pem"]).unwrap()).unwrap());
}

#[test]
fn roots_that_others_added_stay_and_an_intermediate_is_left_alone() {
    let other = Ca::root("other");
    let mut first = made().unwrap().to_files();
    let roots = format!("{}{}", String::from_utf8_lossy(&first["root-cert.pem"]), other.pem());
    first.insert("root-cert.pem".to_owned(), file(&roots));
    let both = step(&first, View { is_due: true, ..REST }, made).unwrap().unwrap();
    let second = step(&both, View { is_distributed: true, ..REST }, made).unwrap().unwrap();
    let roots = CaCertificate::all("roots", std::str::from_utf8(&second["root-cert.pem"]).unwrap()).unwrap();
    assert!(roots.len() == 2 && roots.contains(&CaCertificate::all("other", &other.pem()).unwrap()[0]));
    let intermediate = other.intermediate("intermediate").material(&other.pem()).to_files();
    assert_eq!(step(&intermediate, View { is_due: true, ..REST }, made).unwrap(), None);
}

/// A replica, and whether all of its proxies have acknowledged what it gave them.
struct Replica {
    authority: Authority,
    holding: bool,
}

impl Replica {
    fn new(files: &Files, options: &AuthorityOptions) -> Self {
        let authority = Authority::supplied(&Material::from_files(files).unwrap(), options.clone()).unwrap();
        Self { authority, holding: false }
    }

    fn look(&self, files: &Files, now: SystemTime) {
        self.authority.supply(Material::from_files(files).unwrap());
        let progress = Progress { connected: 1, holding: self.holding.into() };
        self.authority.look(now, progress).unwrap();
    }

    fn signer(&self) -> String {
        self.authority.status().signer.serial_hex
    }
}

#[test]
fn replicas_change_their_root_together_and_one_that_starts_later_knows_the_old_one() {
    let now = SystemTime::now();
    let pace = Pace { staged: true, least: MINUTE, longest: DAY };
    let options =
        AuthorityOptions { root_ttl: 100 * DAY, max_ttl: DAY, root_check_interval: SECOND, pace, ..options() };
    let fresh = Replica::new(&made().unwrap().to_files(), &options);
    let (root, key) = crate::root::create(&options.trust_domain, now - 81 * DAY, options.root_ttl).unwrap();
    let mut files: Files = [("ca-cert.pem", &root), ("root-cert.pem", &root), ("ca-key.pem", &*key)]
        .map(|(name, text)| (name.to_owned(), file(text)))
        .into();
    let old = CaCertificate::all("root", std::str::from_utf8(&files["root-cert.pem"]).unwrap()).unwrap().remove(0);
    let mut replicas = [(); 2].map(|()| Replica::new(&files, &options));
    assert_eq!(replicas[0].authority.shared_step(&files, now, false).unwrap(), None, "it is not time to look");
    let mut now = now + 2 * SECOND;
    assert_eq!(fresh.authority.shared_step(&files, now, false).unwrap(), None, "far from its end");
    files = replicas[0].authority.shared_step(&files, now, false).unwrap().expect("near its end");
    assert_eq!(replicas[1].authority.shared_step(&files, now, false).unwrap(), None, "not distributed");
    replicas.iter().for_each(|replica| replica.look(&files, now));
    assert!(replicas.iter().all(|replica| replica.authority.stage() == Stage::Distributing));
    // The leader's proxies have it, another's do not.
    replicas[0].holding = true;
    now += 2 * MINUTE;
    replicas.iter().for_each(|replica| replica.look(&files, now));
    assert!(!replicas[0].authority.awaits(&files) && replicas[1].authority.awaits(&files));
    assert_eq!(replicas[0].authority.shared_step(&files, now, true).unwrap(), None);
    // One that starts now waits anew.
    let late = Replica::new(&files, &options);
    assert!(late.authority.awaits(&files));
    replicas[1].holding = true;
    replicas.iter().for_each(|replica| replica.look(&files, now));
    assert!(!replicas[1].authority.awaits(&files));
    files = replicas[0].authority.shared_step(&files, now, false).unwrap().expect("it signs");
    replicas.iter().for_each(|replica| replica.look(&files, now));
    assert_eq!(replicas[0].signer(), replicas[1].signer());
    assert_ne!(replicas[0].signer(), old.serial_hex);
    let former = replicas[0].authority.former_roots();
    assert!(former.len() == 1 && former[0].root == old && former[0].until > now);
    let restarted = Replica::new(&files, &options);
    let trusts = |replica: &Replica| replica.authority.root_pem().contains(&**old.pem());
    assert!(replicas.iter().all(trusts) && !trusts(&restarted));
    restarted.authority.remember(&former, now).unwrap();
    assert!(trusts(&restarted));
    assert_eq!(restarted.authority.former_roots(), former);
    restarted.look(&files, former[0].until + MINUTE);
    assert!(!trusts(&restarted) && restarted.authority.former_roots().is_empty(), "its certificates have ended");
}
