use meltemi_plan::cluster::SubsetSelector;
use serde_json::json;

use super::*;
use crate::testing;

fn members() -> Vec<LocalityMembers> {
    let host = |n: u8, labels: Value| {
        let mut host = Endpoint::bare(testing::socket(n, 80).into());
        host.metadata = Some(Arc::new(meltemi_plan::Metadata { filters: [("envoy.lb".into(), labels)].into() }));
        Arc::new(host)
    };
    let hosts = vec![
        host(1, json!({ "version": "v1", "stage": "prod" })),
        host(2, json!({ "version": "v2", "stage": "prod" })),
        host(3, json!({ "version": "v2", "stage": ["test", "dev"] })),
        Arc::new(Endpoint::bare(testing::socket(4, 80).into())),
    ];
    vec![LocalityMembers { priority: 0, weight: 0, hosts }]
}

fn config(fallback: SubsetFallback) -> LbSubsets {
    let selector =
        |keys: &[&str], fallback| SubsetSelector { keys: keys.iter().map(|k| (*k).into()).collect(), fallback };
    LbSubsets {
        fallback,
        default_subset: json!({ "version": "v1" }),
        selectors: vec![
            selector(&["version"], None),
            selector(&["version", "stage"], None),
            selector(&["stage"], Some(SubsetFallback::AnyEndpoint)),
        ],
        panic_mode_any: false,
        list_as_any: true,
    }
}

#[test]
fn routes_get_the_hosts_they_ask_for() {
    let (members, shape) = (members(), Shape::default());
    let all = Arc::new(EndpointSet::new(&members, &shape));
    let check = |config: &LbSubsets, criteria: Option<Value>, expected: &[u8]| {
        let chosen = Subsets::new(config, &members, &shape, None).choose(criteria.as_ref(), &all);
        let mut hosts: Vec<_> = chosen.hosts().map(|h| h.address.to_string()).collect();
        hosts.sort();
        let expected: Vec<_> = expected.iter().map(|n| testing::socket(*n, 80).to_string()).collect();
        assert_eq!(hosts, expected, "{criteria:?}");
    };
    let none = config(SubsetFallback::None);
    check(&none, Some(json!({ "version": "v2" })), &[2, 3]);
    check(&none, Some(json!({ "stage": "prod", "version": "v2" })), &[2]);
    check(&none, Some(json!({ "stage": "dev", "version": "v2" })), &[3]);
    check(&none, Some(json!({ "version": "v3" })), &[]);
    check(&none, Some(json!({ "stage": "nope" })), &[1, 2, 3, 4]);
    check(&none, Some(json!({ "unknown": "x" })), &[]);
    check(&none, None, &[]);
    check(&config(SubsetFallback::AnyEndpoint), None, &[1, 2, 3, 4]);
    check(&config(SubsetFallback::DefaultSubset), Some(json!({ "version": "v3" })), &[1]);
    // Envoy's panic mode stands behind the cluster's fallback, and helps neither its absence nor a selector's own.
    check(&LbSubsets { panic_mode_any: true, ..none }, None, &[]);
    let mut nobody = LbSubsets { panic_mode_any: true, ..config(SubsetFallback::DefaultSubset) };
    nobody.default_subset = json!({ "version": "v9" });
    check(&nobody, Some(json!({ "version": "v3" })), &[1, 2, 3, 4]);
    nobody.selectors[0].fallback = Some(SubsetFallback::DefaultSubset);
    check(&nobody, Some(json!({ "version": "v3" })), &[]);
}
