//! Installations in a real Kubernetes API: API server, etcd and controllers, without a node, in a network namespace of
//! their own. Without their programs, or without root, it says "skipped: …".
//!
//! One cluster serves all cases, one after the other; each begins and ends with nothing installed. `cargo test --test install
//! NAME` runs those whose name has NAME in it.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

mod adoption;
mod cases;
mod kubernetes;
mod revisions;

use std::process::ExitCode;

use kubernetes::Kubernetes;

type Case = (&'static str, fn(&Kubernetes));

const CASES: &[Case] = &[
    ("a_second_install_changes_nothing", cases::twice),
    ("a_dry_run_keeps_nothing", cases::dry_run),
    ("what_is_switched_off_is_removed", cases::prune),
    ("what_is_not_ready_in_time_is_said", cases::readiness),
    ("what_is_verified_is_what_was_installed", cases::verification),
    ("documents_uninstall_what_they_installed", cases::uninstall_documents),
    ("what_the_control_plane_wrote_into_webhooks_stays", cases::webhooks),
    ("documents_of_before_install", cases::old_documents),
    ("what_the_control_plane_wrote_goes_and_what_users_made_stays", cases::purge),
    ("a_revision_comes_beside_another_and_goes_again", revisions::canary),
    ("a_tag_stands_for_a_revision", revisions::tags),
    ("a_running_mesh_is_taken_over", adoption::takeover),
    ("objects_of_strangers_are_left_alone", adoption::strangers),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let cases: Vec<&Case> = CASES.iter().filter(|(name, _)| is_wanted(name)).collect();
    if std::env::args().any(|argument| argument == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if cases.is_empty() {
        return ExitCode::SUCCESS;
    }
    match Kubernetes::start() {
        Ok(cluster) => run(&cluster, &cases),
        Err(reason) => {
            println!("{reason}");
            ExitCode::SUCCESS
        }
    }
}

/// Whatever a case installs, it leaves nothing behind.
fn run(cluster: &Kubernetes, cases: &[&Case]) -> ExitCode {
    let before = cluster.everything();
    let mut failed = 0;
    for (name, case) in cases {
        let ended = std::panic::catch_unwind(|| case(cluster));
        let left = std::panic::catch_unwind(|| {
            cluster.meltemi(&["uninstall", "--purge", "-y"]).succeeds();
            kubernetes::until(&format!("{name} leaves nothing"), || {
                let left: Vec<_> = cluster.everything().difference(&before).cloned().collect();
                if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
            });
        });
        let passed = ended.is_ok() && left.is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("\ntest result: {} passed; {failed} failed", cases.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
