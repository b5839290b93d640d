use super::*;

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                   data:\n  mesh: |\n    trustDomain: map.example\n";

fn objects(text: &str) -> Vec<Object> {
    meltemi_config::parse_documents("m.yaml", text).into_iter().filter_map(|document| document.object).collect()
}

fn trust_domain(mesh: &Mesh) -> &str {
    &mesh.config.trust_domain
}

#[test]
fn the_file_wins_over_the_config_map_and_that_over_the_defaults() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("mesh.yaml");
    let both = |objects: &[Object]| load(Some(&file), objects);
    assert_eq!(trust_domain(&load(None, &[]).expect("defaults")), "cluster.local");
    let mesh = load(None, &objects(MAP)).expect("the map");
    assert_eq!((trust_domain(&mesh), mesh.warnings.len()), ("map.example", 0));
    let missing = both(&[]).expect("defaults");
    assert!(missing.warnings[0].contains("mesh.yaml: no such file"), "{:?}", missing.warnings);
    std::fs::write(&file, "trustDomain: file.example\n").expect("write");
    let mesh = both(&objects(MAP)).expect("the file");
    assert_eq!(trust_domain(&mesh), "file.example");
    assert!(mesh.warnings[0].starts_with("warning: ConfigMap istio-system/istio is not used"), "{:?}", mesh.warnings);
    std::fs::write(&file, "trustDomian: x\n").expect("write");
    let wrong = both(&[]).err().expect("wrong");
    assert!(
        wrong[0].ends_with("mesh.yaml:1: error: trustDomian: unknown field; did you mean `trustDomain`?"),
        "{wrong:?}"
    );
}

#[test]
fn an_edit_of_the_file_is_told() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("mesh.yaml");
    let mut followed = Followed::new(file.clone());
    let mut after = |text: Option<&str>| {
        match text {
            Some(text) => std::fs::write(&file, text).expect("write"),
            None => std::fs::remove_file(&file).expect("remove"),
        }
        // Edits of one tick of the clock have one time.
        followed.modified = followed.modified.map(|time| time - Duration::from_secs(1));
        followed.looked -= POLL;
        followed.news("cluster.local")
    };
    assert_eq!(after(Some("accessLogFile: /dev/stdout\n")), ["mesh.yaml: in force"]);
    assert_eq!(
        after(Some("trustDomain: new.example\n")),
        [
            "warning: trustDomain is now new.example, which takes a restart; until then it is cluster.local",
            "mesh.yaml: in force"
        ]
    );
    let wrong = after(Some("accessLogFle: x\n"));
    assert!(wrong[0].contains("mesh.yaml:1: error: accessLogFle: unknown field"), "{wrong:?}");
    assert_eq!(wrong[1], "the mesh configuration in force stays");
    assert_eq!(after(None), ["mesh.yaml: gone; the mesh configuration in force stays"]);
}
