use super::*;

#[test]
fn lists_of_levels() {
    let base = Levels::new(Level::WARNING);
    let check = |list: &str, component: &str, expected: &str| {
        let levels = base.clone().with_list(list).unwrap();
        assert_eq!(levels.level(component).name(), expected, "{list} {component}");
    };
    check("", "upstream", "warning");
    check("misc:error,upstream:debug", "upstream", "debug");
    check("misc:error,upstream:debug", "http", "warning");
    check("default:info, xds:trace", "http", "info");
    check("default:info, xds:trace", "xds", "trace");
    check("all:none", "xds", "off");
    check("ads:debug,router:debug", "proxy", "debug");
    assert_eq!(base.clone().with_list("upstream"), Err(LevelError::Pair("upstream".into())));
    assert_eq!(base.with_list("upstream:loud"), Err(LevelError::Level("loud".into())));
}

#[test]
fn components_of_envoy_stand_for_ours() {
    let check = |list: &str, component: &str, expected: &str| {
        let levels = Levels::new(Level::WARNING).with_components(list).unwrap();
        assert_eq!(levels.level(component).name(), expected, "{list} {component}");
    };
    check("upstream:info,router:debug", "proxy", "debug");
    check("upstream:info,router:debug", "upstream", "info");
    check("upstream:info,router:debug", "http", "warning");
    check("rbac:trace", "filters", "trace");
    check("misc:error,kafka:debug", "filters", "warning");
    let refused = Levels::new(Level::WARNING).with_components("router:debug,bogus:debug");
    assert_eq!(refused, Err(LevelError::Component("bogus".into())));
}

#[test]
fn a_log_file_is_opened_anew_where_it_was() {
    let path = std::env::temp_dir().join(format!("meltemi-log-{}", std::process::id()));
    let moved = path.with_extension("1");
    let file = LogFile::open(&path).unwrap();
    std::io::Write::write_all(&mut &file, b"one\n").unwrap();
    std::fs::rename(&path, &moved).unwrap();
    std::io::Write::write_all(&mut &file, b"two\n").unwrap();
    file.reopen().unwrap();
    std::io::Write::write_all(&mut &file, b"three\n").unwrap();
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    for file in [path, moved] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn targets_follow_components() {
    let levels = Levels::new(Level::INFO).with_list("upstream:debug").unwrap();
    let targets = levels.targets();
    let enabled = |target: &str, level: tracing::Level| targets.would_enable(target, &level);
    assert!(enabled("meltemi_upstream::dns", tracing::Level::DEBUG));
    assert!(!enabled("meltemi_http", tracing::Level::DEBUG));
    assert!(enabled("meltemi_http", tracing::Level::INFO));
    assert!(!enabled("h2::codec", tracing::Level::INFO));
}

#[test]
fn an_unknown_component_is_refused() {
    let logging = Logging::install(Format::Text, Levels::new(Level::INFO));
    assert_eq!(logging.set(Some("nope"), Level::INFO), Err(LevelError::Component("nope".into())));
    logging.set(Some("http"), Level::WARNING).unwrap();
    assert_eq!(logging.levels().level("http").name(), "warning");
    logging.set(None, Level::INFO).unwrap();
    assert_eq!(logging.levels().level("http").name(), "info");
}
