//! Discovery in a real Kubernetes: API server, etcd and controllers, started by `scripts/kubernetes/cluster` in a network
//! namespace of its own and removed again. Without its programs, or without root, it says "skipped: …".
//!
//! One cluster serves all cases, one after the other: some take the API server away. `cargo test --test cluster NAME` runs those
//! whose name has NAME in it.

mod client;
mod documents;
mod entries;
mod faults;
mod gateways;
mod istioctl;
mod kubernetes;
mod leadership;
mod process;
mod registry;
mod roots;
mod trust;

use std::process::ExitCode;

use kubernetes::Kubernetes;

type Case = (&'static str, fn(&Kubernetes));

const CASES: &[Case] = &[
    ("services_of_the_cluster_reach_proxies_and_so_do_their_changes", registry::services),
    ("kinds_come_and_go_with_their_definitions", registry::definitions),
    ("one_wrong_object_is_reported_and_hides_no_other", registry::wrong_objects),
    ("mesh_configuration_and_selected_namespaces_change_while_it_runs", registry::mesh_configuration),
    ("an_outage_of_the_api_server_is_survived", registry::outage),
    ("tokens_are_reviewed_and_prove_accounts", trust::tokens),
    ("roots_are_in_every_namespace_and_stay_what_they_are", trust::roots_everywhere),
    ("all_replicas_share_one_root", trust::one_root),
    ("replicas_change_their_root_together_and_none_forgets_the_old_one", roots::rotation),
    ("revocation_lists_of_plugged_certificates_are_in_every_namespace", roots::revocations),
    ("signers_of_the_cluster_sign_for_workloads_that_are_proven", trust::external),
    ("secrets_are_for_gateways_that_may_read_them", trust::secrets),
    ("one_replica_leads_and_another_takes_over", leadership::takeover),
    ("a_gateways_status_is_written_and_others_rows_stay", leadership::statuses),
    ("a_gateway_gets_a_deployment_that_is_kept_and_others_stay", gateways::deployments),
    ("webhooks_know_our_root", leadership::webhooks),
    ("istioctl_reads_status_configuration_and_pages", istioctl::answers),
    ("a_workload_that_registers_itself_is_an_object_of_the_cluster", entries::registered),
    ("entries_of_a_replica_that_died_are_taken_away", entries::orphaned),
    ("a_tag_leads_objects_to_its_revision_and_may_move", registry::tags),
    ("a_storage_that_is_restored_from_a_copy_is_read_anew", faults::restored),
    ("a_certificate_that_ended_while_discovery_slept_is_replaced", faults::expired),
    ("a_replica_killed_amid_a_push_costs_its_proxies_nothing", faults::killed),
    ("connections_grow_old_and_come_again_elsewhere", faults::rebalanced),
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
        Ok(cluster) => run(cluster, &cases),
        Err(reason) => {
            println!("{reason}");
            ExitCode::SUCCESS
        }
    }
}

/// Runs the cases on a thread of the cluster's network, which all they start is in, too.
fn run(cluster: Kubernetes, cases: &[&Case]) -> ExitCode {
    let mut failed = 0;
    for (name, case) in cases {
        let cluster = &cluster;
        let ended = std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                cluster.enter();
                case(cluster);
            });
            running.join()
        });
        println!("test {name} ... {}", if ended.is_ok() { "ok" } else { "FAILED" });
        failed += u32::from(ended.is_err());
    }
    drop(cluster);
    println!("\ntest result: {} passed; {failed} failed", cases.len() - failed as usize);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
