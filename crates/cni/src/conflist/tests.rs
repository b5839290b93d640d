use super::*;

fn wanted(mode: Mode) -> Wanted {
    let settings = PluginSettings { pod_namespace: "istio-system".into(), ..PluginSettings::default() };
    Wanted { mode, file: None, plugin: plugin(&settings) }
}

fn files(all: &[(&str, Value)]) -> Files {
    all.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
}

fn bridge() -> Value {
    json!({"cniVersion": "0.4.0", "name": "dbnet", "type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local"}})
}

fn list() -> Value {
    json!({"name": "k8s", "cniVersion": "1.0.0", "disableCheck": true,
        "plugins": [{"type": "calico", "mtu": 1500}, {"type": "portmap", "capabilities": {"portMappings": true}}]})
}

fn with_ours(mut list: Value) -> Value {
    list["plugins"].as_array_mut().unwrap().push(wanted(Mode::Chained).plugin.into());
    list
}

fn write(plan: Plan) -> (String, Value, Option<String>) {
    match plan {
        Plan::Write { name, text, replaces } => (name, serde_json::from_str(&text).unwrap(), replaces),
        other => panic!("{other:?}"),
    }
}

fn wait(plan: Plan) -> String {
    match plan {
        Plan::Wait(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_plugin_comes_last_in_the_first_list() {
    let files = files(&[("10-calico.conflist", list()), ("20-other.conflist", list()), ("05-readme.txt", json!({}))]);
    let expected = ("10-calico.conflist".to_owned(), with_ours(list()), None);
    assert_eq!(write(plan(&files, &wanted(Mode::Chained))), expected);
}

#[test]
fn a_single_configuration_becomes_a_list_of_its_name_and_version() {
    let files = files(&[("10-bridge.conf", bridge())]);
    let (name, value, replaces) = write(plan(&files, &wanted(Mode::Chained)));
    assert_eq!((&*name, replaces.as_deref()), ("10-bridge.conflist", Some("10-bridge.conf")));
    let mut inner = bridge();
    inner.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(value, with_ours(json!({"name": "dbnet", "cniVersion": "0.4.0", "plugins": [inner]})));
    let nameless = super::tests::files(&[("a.json", json!({"type": "bridge"}))]);
    let (name, value, _) = write(plan(&nameless, &wanted(Mode::Chained)));
    assert_eq!(
        (&*name, &value["name"], &value["cniVersion"]),
        ("a.conflist", &json!("k8s-pod-network"), &json!("0.3.1"))
    );
}

#[test]
fn what_is_in_place_is_kept_and_what_differs_is_replaced() {
    let wanted = wanted(Mode::Chained);
    let in_place = files(&[("10-calico.conflist", with_ours(list()))]);
    assert_eq!(plan(&in_place, &wanted), Plan::Keep("10-calico.conflist".into()));
    let mut older = list();
    older["plugins"].as_array_mut().unwrap().insert(1, json!({"type": "istio-cni", "kubernetes": {}}));
    let (_, value, _) = write(plan(&files(&[("10-calico.conflist", older)]), &wanted));
    assert_eq!(value, with_ours(list()));
}

#[test]
fn a_list_of_our_own_copies_the_one_it_stands_before() {
    let own = wanted(Mode::Owned("02-istio-cni.conflist".into()));
    let only = files(&[("10-calico.conflist", list())]);
    assert_eq!(write(plan(&only, &own)), ("02-istio-cni.conflist".to_owned(), with_ours(list()), None));
    let in_place = files(&[("02-istio-cni.conflist", with_ours(list())), ("10-calico.conflist", list())]);
    assert_eq!(plan(&in_place, &own), Plan::Keep("02-istio-cni.conflist".into()));
    let mut newer = list();
    newer["plugins"][0]["mtu"] = json!(9000);
    let changed = files(&[("02-istio-cni.conflist", with_ours(list())), ("10-calico.conflist", newer.clone())]);
    assert_eq!(write(plan(&changed, &own)).1, with_ours(newer));
    let before = files(&[("01-calico.conflist", list())]);
    assert!(wait(plan(&before, &own)).contains("comes after 01-calico.conflist"));
}

#[test]
fn alone_the_plugin_has_a_file_of_its_own() {
    let (name, value, replaces) = write(plan(&Files::new(), &wanted(Mode::Alone)));
    assert_eq!((&*name, replaces), ("YYY-istio-cni.conf", None));
    assert_eq!((&value["type"], &value["cniVersion"]), (&json!("istio-cni"), &json!("0.3.1")));
    let named = Wanted { file: Some("00-x.conf".into()), ..wanted(Mode::Alone) };
    assert_eq!(write(plan(&Files::new(), &named)).0, "00-x.conf");
}

#[test]
fn a_named_file_is_waited_for_under_either_ending() {
    let named = |file: &str| Wanted { file: Some(file.to_owned()), ..wanted(Mode::Chained) };
    let there = files(&[("10-a.conflist", list()), ("20-b.conflist", list())]);
    assert_eq!(write(plan(&there, &named("20-b.conf"))).0, "20-b.conflist");
    assert_eq!(wait(plan(&there, &named("30-c.conf"))), "30-c.conf: no such file");
}

#[test]
fn files_that_no_runtime_could_use_are_passed_over() {
    let there = files(&[
        ("01-empty.conflist", json!({"name": "x", "cniVersion": "1.0.0", "plugins": []})),
        ("02-nameless.conflist", json!({"cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]})),
        ("03-list.conf", list()),
        ("10-calico.conflist", list()),
    ]);
    assert_eq!(write(plan(&there, &wanted(Mode::Chained))).0, "10-calico.conflist");
    let mut broken = files(&[("03-untyped.conflist", json!({"name": "x", "plugins": [{"type": "a"}, {}]}))]);
    broken.insert("04-broken.conf".into(), "{".into());
    broken.insert("05-named.conf".into(), json!({"type": "bridge", "name": 7}).to_string());
    let reason = wait(plan(&broken, &wanted(Mode::Chained)));
    assert!(reason.contains("03-untyped.conflist: plugins[1].type"), "{reason}");
    assert!(reason.contains("04-broken.conf: no JSON"), "{reason}");
    assert!(reason.contains("05-named.conf: name: a string is expected"), "{reason}");
    assert_eq!(wait(plan(&Files::new(), &wanted(Mode::Chained))), "no configuration of a container network yet");
}

#[test]
fn lists_in_which_the_plugin_cannot_work_are_left() {
    let check = |list: Value, expected: &str| {
        let reason = wait(plan(&files(&[("10-a.conflist", list)]), &wanted(Mode::Chained)));
        assert!(reason.contains(expected), "{reason}");
    };
    check(json!({"name": "x", "cniVersion": "0.2.0", "plugins": [{"type": "bridge"}]}), "10-a.conflist: cniVersion");
    check(json!({"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "istio-cni"}]}), "nothing but istio-cni");
    let several = json!({"name": "x", "cniVersions": ["0.2.0", "1.1.0"], "plugins": [{"type": "bridge"}]});
    assert_eq!(write(plan(&files(&[("10-a.conflist", several)]), &wanted(Mode::Chained))).0, "10-a.conflist");
}

#[test]
fn the_plugin_comes_out_of_every_file() {
    let there = files(&[
        ("02-istio-cni.conflist", with_ours(list())),
        ("10-calico.conflist", with_ours(list())),
        ("20-foreign.conflist", list()),
        ("30-ours.conflist", json!({"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "istio-cni"}]})),
        ("YYY-istio-cni.conf", json!({"type": "istio-cni"})),
    ]);
    let removed = removals(&there, &wanted(Mode::Owned("02-istio-cni.conflist".into())));
    let names: Vec<_> = removed.iter().map(|removal| (&*removal.name, removal.text.is_some())).collect();
    let expected = [
        ("02-istio-cni.conflist", false),
        ("10-calico.conflist", true),
        ("30-ours.conflist", false),
        ("YYY-istio-cni.conf", false),
    ];
    assert_eq!(names, expected);
    let text = removed[1].text.as_ref().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), list());
}

#[test]
fn what_the_plugin_is_told_it_can_read() {
    let mut configuration = wanted(Mode::Chained).plugin;
    configuration.insert("cniVersion".into(), "1.0.0".into());
    let network = crate::network::parse(Value::from(configuration).to_string().as_bytes()).unwrap();
    assert_eq!(network.pod_namespace, "istio-system");
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    // As deep as this library reads.
    let deep =
        format!("{{\"type\": \"bridge\", \"cniVersion\": \"1.0.0\", \"x\": {}1{}}}", "[".repeat(125), "]".repeat(125));
    let there = [("10-deep.conf".to_owned(), deep)].into();
    let reason = wait(plan(&there, &wanted(Mode::Chained)));
    assert!(reason.contains("10-deep.conflist: could not be read again"), "{reason}");
}
