use super::*;
use crate::testing::update;
use meltemi_config::rate_limit::RateLimitUnit;

fn configurations(rules: &str) -> Vec<RateLimitConfiguration> {
    let yaml = format!(
        "apiVersion: meltemi.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: api, namespace: shop}}\n\
         spec: {{rules: {rules}}}\n"
    );
    let policies: Vec<_> = update(&yaml).rate_limit_policies.into_iter().filter_map(|(_, policy)| policy).collect();
    server_configurations(policies.iter().map(|policy| (policy.key(), &*policy.spec)))
}

#[test]
fn a_server_is_told_of_global_rules_by_domain() {
    let all = configurations(
        "[{limit: {requests: 1, unit: SECOND}}, \
          {name: users, scope: GLOBAL, provider: {address: 'rl.infra:8081'}, limit: {requests: 5, unit: MINUTE}, \
           by: [{header: X-User}, {value: gold}], dryRun: true}, \
          {scope: GLOBAL, provider: {address: 'rl.infra:8081', domain: other}, limit: {requests: 7, unit: YEAR}}]",
    );
    let [own, other] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*own.domain, &*other.domain), (DOMAIN, "other"));
    let [rule] = &own.descriptors[..] else { panic!("{own:?}") };
    let user = &rule.descriptors[0];
    let gold = &user.descriptors[0];
    let entries = [rule, user, gold].map(|entry| (&*entry.key, &*entry.value));
    assert_eq!(entries, [(RULE, "shop/api/users"), ("request.headers[x-user]", ""), ("value", "gold")]);
    let limit = gold.rate_limit.as_ref().expect("a limit");
    assert_eq!((limit.requests_per_unit, RateLimitUnit::parse(&limit.unit)), (5, Some(RateLimitUnit::Minute)));
    assert!(gold.shadow_mode && rule.rate_limit.is_none() && user.rate_limit.is_none());
    assert_eq!(&*other.descriptors[0].value, "shop/api/2", "a rule without a name is named by its place");
    assert_eq!(other.descriptors[0].rate_limit.as_ref().map(|limit| limit.requests_per_unit), Some(7));
}
