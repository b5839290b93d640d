use super::*;
use crate::testing;

fn groups(hosts: &[(u8, u32)]) -> Vec<HostGroup> {
    let plan = testing::plan(meltemi_plan::ClusterKind::Static, testing::round_robin(), None);
    let endpoints = hosts.iter().map(|(h, w)| testing::endpoint(testing::socket(*h, 80), *w)).collect();
    crate::adapt::groups(&plan, &testing::assignment(vec![testing::locality(0, None, endpoints)]))
}

fn ids(members: &[LocalityMembers]) -> Vec<u64> {
    members.iter().flat_map(|l| &l.hosts).map(|h| h.id).collect()
}

#[test]
fn hosts_keep_their_identity() {
    let first = update(&[], &groups(&[(1, 1), (2, 1)]), Lifecycle::default());
    let busy = first.members[0].hosts[0].clone();
    let _request = busy.begin_request();
    busy.state.set(Fault::Outlier, true);
    // 10.0.0.1 changes its weight, .2 goes, .3 comes.
    let second = update(&first.members, &groups(&[(3, 1), (1, 5)]), Lifecycle::default());
    let host = &second.members[0].hosts[1];
    assert_eq!((host.id, host.weight, host.active_requests()), (busy.id, 5, 1));
    assert!(host.state.has(Fault::Outlier));
    assert_eq!((second.added, second.removed.len()), (1, 1));
    assert_eq!(second.removed[0].id, first.members[0].hosts[1].id);
    // Nothing changed: the very same endpoints.
    let third = update(&second.members, &groups(&[(3, 1), (1, 5)]), Lifecycle::default());
    assert!(Arc::ptr_eq(&third.members[0].hosts[0], &second.members[0].hosts[0]));
    assert_eq!((third.added, third.removed.len()), (0, 0));
}

#[test]
fn an_address_counts_once() {
    let members = update(&[], &groups(&[(1, 1), (1, 7), (2, 1)]), Lifecycle::default()).members;
    assert_eq!(ids(&members).len(), 2);
    assert_eq!(members[0].hosts[0].weight, 1);
}

#[test]
fn checked_hosts_wait_for_an_answer_and_outlive_their_mention() {
    let checked = Lifecycle { checked: true, ignore_health_on_removal: false };
    let first = update(&[], &groups(&[(1, 1), (2, 1)]), checked);
    let hosts = &first.members[0].hosts;
    assert!(hosts.iter().all(|h| h.state.has(Fault::PendingCheck) && h.state.has(Fault::ActiveCheck)));
    // .1 passes its check, .2 does not; both are withdrawn.
    hosts[0].state.set(Fault::ActiveCheck, false);
    let second = update(&first.members, &groups(&[]), checked);
    let staying: Vec<_> = second.members.iter().flat_map(|l| &l.hosts).collect();
    assert_eq!((staying.len(), staying[0].id), (1, hosts[0].id));
    assert!(staying[0].state.has(Fault::Removed));
    // Named again, it is a full member.
    let third = update(&second.members, &groups(&[(1, 1)]), checked);
    assert_eq!(ids(&third.members), [hosts[0].id]);
    assert!(!third.members[0].hosts[0].state.has(Fault::Removed));
    // Unless removal is to be at once.
    let at_once = Lifecycle { checked: true, ignore_health_on_removal: true };
    assert_eq!(ids(&update(&third.members, &groups(&[]), at_once).members), [0u64; 0]);
}
