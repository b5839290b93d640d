use super::*;
use crate::members::{self, Lifecycle};
use crate::testing;

fn members(localities: Vec<meltemi_plan::LocalityEndpoints>) -> Vec<LocalityMembers> {
    let plan = testing::plan(meltemi_plan::ClusterKind::Static, testing::round_robin(), None);
    let groups = crate::adapt::groups(&plan, &testing::assignment(localities));
    members::update(&[], &groups, Lifecycle::default()).members
}

fn some(priority: u32, hosts: std::ops::Range<u8>) -> meltemi_plan::LocalityEndpoints {
    testing::locality(priority, Some(1), hosts.map(|h| testing::endpoint(testing::socket(h, 80), 1)).collect())
}

fn fail(members: &[LocalityMembers], count: usize) {
    let hosts = members.iter().flat_map(|l| &l.hosts);
    hosts.take(count).for_each(|h| {
        h.state.set(Fault::Outlier, true);
    });
}

#[test]
fn unhealthy_hosts_do_not_serve_until_panic() {
    let check = |failed: usize, serving: usize, panic: bool| {
        let members = members(vec![some(0, 0..10)]);
        fail(&members, failed);
        let set = EndpointSet::new(&members, &Shape::default());
        assert_eq!(
            (set.priorities[0].serving.all.hosts.len(), set.loads.panic[0]),
            (serving, panic),
            "{failed} failed"
        );
    };
    check(0, 10, false);
    check(2, 8, false);
    // 8 of 10 times 1.4 is above 100: no spill and no panic; at 5 of 10 still; below, all serve.
    check(5, 5, false);
    check(6, 10, true);
    check(10, 10, true);
}

#[test]
fn panic_may_refuse_instead() {
    let members = members(vec![some(0, 0..10)]);
    fail(&members, 8);
    let shape = Shape { fail_traffic_on_panic: true, ..Shape::default() };
    assert!(EndpointSet::new(&members, &shape).priorities[0].serving.all.hosts.is_empty());
}

#[test]
fn load_spills_to_the_next_priority() {
    let members = members(vec![some(0, 0..10), some(1, 10..20)]);
    fail(&members, 5);
    let set = EndpointSet::new(&members, &Shape::default());
    assert_eq!(set.loads.healthy, [70, 30]);
    assert_eq!((set.len(), set.healthy), (20, 15));
}

#[test]
fn hash_keys_prefer_metadata_then_the_hostname() {
    let mut host = Endpoint::bare(testing::socket(1, 80).into());
    assert_eq!(hash_key(&host, true), "10.0.0.1:80");
    host.hostname = "h".into();
    assert_eq!([hash_key(&host, false), hash_key(&host, true)], ["10.0.0.1:80", "h"]);
    let filters = [("envoy.lb".into(), serde_json::json!({ "hash_key": "k" }))].into();
    host.metadata = Some(Arc::new(meltemi_plan::Metadata { filters }));
    assert_eq!(hash_key(&host, true), "k");
}

#[test]
fn a_set_without_members_is_empty() {
    let set = EndpointSet::new(&[], &Shape::default());
    assert!(set.is_empty() && set.priorities.is_empty());
}

#[test]
fn draining_hosts_take_nothing_and_are_missed_by_nobody() {
    let check = |fault: Option<Fault>, first: u32| {
        let members = members(vec![some(0, 0..3), some(1, 3..6)]);
        for host in members[0].hosts.iter().take(2) {
            host.state.set(Fault::Eds, true);
            fault.map(|fault| host.state.set(fault, true));
        }
        let set = EndpointSet::new(&members, &Shape::default());
        assert_eq!((set.loads.healthy[0], set.priorities[0].serving.all.hosts.len()), (first, 1), "{fault:?}");
    };
    check(None, 46);
    check(Some(Fault::Draining), 100);
}
