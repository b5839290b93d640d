use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Invocation, Failure> {
    Invocation::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

const CONTAINER: [(&str, &str); 3] = [("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/run/netns/p"), ("CNI_IFNAME", "eth0")];

fn with(command: &str, arguments: &str) -> Result<Invocation, Failure> {
    read(&[&CONTAINER[..], &[("CNI_COMMAND", command), ("CNI_ARGS", arguments)]].concat())
}

#[test]
fn the_kubelets_arguments_name_the_pod() {
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1;X=y";
    let pod = PodName { namespace: "shop".into(), name: "web-0".into(), uid: "u1".into() };
    let invocation = with("ADD", arguments).unwrap();
    assert_eq!(invocation, Invocation { verb: Verb::Add, namespace: "/run/netns/p".into(), pod: Some(pod) });
    assert_eq!(with("CHECK", "").unwrap().pod, None);
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let message = |result: Result<Invocation, Failure>| result.unwrap_err().message;
    assert_eq!(message(read(&[])), "CNI_COMMAND: not set in the environment");
    assert_eq!(message(read(&[("CNI_COMMAND", "ADD")])), "CNI_CONTAINERID: not set in the environment");
    assert!(message(with("PAUSE", "")).contains("`PAUSE` is none of"));
    assert!(message(with("ADD", "X=y")).contains("`X` is unknown"));
    assert!(message(with("ADD", "IgnoreUnknown")).contains("no key=value"));
}

#[test]
fn a_namespace_that_is_gone_can_still_be_deleted() {
    let invocation = read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")]).unwrap();
    assert_eq!(invocation.verb, Verb::Delete);
}
