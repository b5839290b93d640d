use serde_json::json;

use super::*;

fn ids(annotations: &[(&str, &str)]) -> (i64, i64) {
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let ids = ProxyIds::of_namespace(&annotations);
    (ids.user, ids.group)
}

#[test]
fn ids_are_the_last_of_the_namespaces_ranges() {
    assert_eq!(ids(&[]), (1337, 1337));
    assert_eq!(ids(&[(USERS, "1000620000/10000"), (GROUPS, "1000620000/10000")]), (1_000_629_999, 1_000_629_999));
    assert_eq!(ids(&[(USERS, "1-5")]), (5, 5));
    assert_eq!(ids(&[(USERS, "1/5"), (GROUPS, "7/2,100/3")]), (5, 8));
    assert_eq!(ids(&[(USERS, "nonsense"), (GROUPS, "")]), (1337, 1337));
    assert_eq!(ids(&[(USERS, "4294967295/2")]), (1337, 1337));
}

#[test]
fn a_user_that_the_application_has_too_is_forgotten() {
    let pod = |proxy: i64| {
        json!({ "spec": { "containers": [
            { "name": "app", "securityContext": { "runAsUser": 7 } },
            { "name": "istio-proxy", "securityContext": { "runAsUser": proxy, "runAsGroup": 1, "privileged": false } },
        ] } })
    };
    let forgotten = |proxy: i64| {
        let mut pod = pod(proxy);
        forget_assigned_user(&mut pod);
        pod["spec"]["containers"][1]["securityContext"].clone()
    };
    assert_eq!(forgotten(7), json!({ "privileged": false }));
    assert_eq!(forgotten(8), json!({ "runAsUser": 8, "runAsGroup": 1, "privileged": false }));
}
