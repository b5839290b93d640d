use super::*;

#[test]
fn what_is_written_as_yaml_is_what_was_generated() {
    let all = meltemi_config::crd::custom_resource_definitions();
    let text = yaml_stream(&all.iter().collect::<Vec<_>>()).expect("yaml");
    let read: Vec<Value> = text
        .split("---\n")
        .filter(|part| !part.is_empty())
        .map(|part| serde_saphyr::from_str(part).expect("a document"))
        .collect();
    assert_eq!(read, all);
}

#[test]
fn a_definition_is_found_by_any_of_its_names() {
    let all = meltemi_config::crd::custom_resource_definitions();
    let found = |name: &str| all.iter().filter(|one| is_named(one, name)).count();
    for name in ["virtualservices", "VirtualService", "virtualservices.networking.istio.io", "RATELIMITPOLICY"] {
        assert_eq!(found(name), 1, "{name}");
    }
    assert_eq!(found("virtual"), 0);
}

#[test]
fn a_name_that_is_none_is_wrong_usage() {
    let arguments = Arguments { name: Some("nothing".to_owned()), output: "yaml".to_owned() };
    assert_eq!(format!("{:?}", run(&arguments).expect("a code")), format!("{:?}", ExitCode::from(USAGE)));
}
