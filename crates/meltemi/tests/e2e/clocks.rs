//! Machines whose clocks differ from discovery's, by libfaketime: within what certificates allow for nothing fails; beyond it both
//! directions fail closed and say why, the authority is not stormed, and all is well once the clock is right.

use crate::mesh::{Mesh, Workload, can_run, service, settles};
use crate::root_rotation::{Authority, POLICY, served};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a certificate is valid before it is made, less a quarter.
const ALLOWED: i64 = 90;
const DAYS: i64 = 3 * 24 * 3600;
/// In which the authority is asked no more.
const CALM: Duration = Duration::from_secs(5);

fn library() -> Result<PathBuf, String> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
    found.ok_or_else(|| "skipped: no libfaketime; scripts/install-test-deps.sh installs it".to_owned())
}

/// A clock that can be set.
struct Clock(PathBuf);

impl Clock {
    fn new(dir: &Path, name: &str, seconds: i64) -> Self {
        let clock = Self(dir.join(format!("clock-{name}")));
        clock.set(seconds);
        clock
    }

    fn set(&self, seconds: i64) {
        let part = self.0.with_extension("part");
        std::fs::write(&part, format!("{seconds:+}\n")).expect("write");
        std::fs::rename(part, &self.0).expect("rename");
    }

    /// The workload whose proxy and agent go by it.
    fn workload(&self, name: &str, library: &Path) -> String {
        let metadata = format!(
            "LD_PRELOAD: {}, FAKETIME_TIMESTAMP_FILE: {}, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1', FAKETIME_DONT_RESET: '1'",
            library.display(),
            self.0.display()
        );
        let annotations = format!("proxy.istio.io/config: \"proxyMetadata: {{{metadata}}}\"");
        let labels = format!("app: {name}");
        Workload { name, labels: &labels, annotations: &annotations, ..Workload::default() }.yaml()
            + &service("app", name, &format!("selector: {{{labels}}}, ports: [{{name: http, port: 8080}}]"))
    }
}

#[test]
fn clocks_may_differ_a_little_and_more_is_told() {
    let library = match can_run().and_then(|()| library()) {
        Ok(library) => library,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let offsets = [("right", 0), ("behind", -ALLOWED), ("ahead", ALLOWED), ("far", DAYS)];
    let clocks = offsets.map(|(name, seconds)| Clock::new(dir.path(), name, seconds));
    let town: String = offsets.iter().zip(&clocks).map(|((name, _), clock)| clock.workload(name, &library)).collect();
    let settings = dir.path().join("mesh.yaml");
    std::fs::write(&settings, "accessLogFile: /dev/stdout\n").expect("write");
    let arguments = ["--mesh-config", &*settings.display().to_string()];
    let mesh = Mesh::start(dir.path(), &[("town.yaml", &town), ("policy.yaml", POLICY)], &arguments);
    let near = ["right", "behind", "ahead"].map(str::to_owned);
    for name in &near {
        let outcome = settles(|| served(&mesh.pod(name), &near));
        assert!(outcome.is_ok(), "{name}: {outcome:?}\n{}", mesh.process.output());
    }

    let log = mesh.proxy_log("far");
    assert!(log.contains("this machine's clock and the authority's differ"), "{log}");
    assert!(!mesh.proxy_log("ahead").contains("clock"));
    let discovery = Authority::of(&mesh);
    let (begin, issued) = (Instant::now(), discovery.issued());
    let far = ["far".to_owned()];
    while begin.elapsed() < CALM {
        for (from, to) in [("right", &far[..]), ("far", &near[..1])] {
            let refused = served(&mesh.pod(from), to).expect_err("a handshake by a wrong clock");
            assert!(refused.contains("503"), "{from}: {refused}");
        }
    }
    let log = mesh.proxy_log("far");
    assert!(log.contains("TLS_error") && log.contains("xpired"), "{log}");
    assert_eq!(discovery.issued(), issued, "certificates are renewed as by a clock that is right");

    clocks[3].set(0);
    let outcome = settles(|| served(&mesh.pod("far"), &near).and_then(|()| served(&mesh.pod("right"), &far)));
    assert!(outcome.is_ok(), "{outcome:?}\n{}", mesh.process.output());
}
