use super::*;
use meltemi_config::networking::StringMatch;

fn rule(name: &str, uri: Option<StringMatch>, edit: impl FnOnce(&mut HttpMatchRequest)) -> HttpRoute {
    let mut condition = HttpMatchRequest { uri, ..HttpMatchRequest::default() };
    edit(&mut condition);
    HttpRoute { name: name.into(), matches: vec![condition], ..HttpRoute::default() }
}

#[test]
fn the_more_specific_rule_is_first_and_equal_ones_stay_in_order() {
    let prefix = |text: &str| Some(StringMatch::prefix(text));
    let header = |condition: &mut HttpMatchRequest| {
        condition.headers.insert("x".into(), StringMatch::exact("1"));
    };
    let rules = vec![
        HttpRoute { name: "everything".into(), ..HttpRoute::default() },
        rule("regex", Some(StringMatch::regex("/long/expression/.*")), |_| {}),
        rule("short", prefix("/a"), |_| {}),
        rule("short again", prefix("/b"), |_| {}),
        rule("query", prefix("/a"), |condition| {
            condition.query_params.insert("q".into(), StringMatch::exact("1"));
        }),
        rule("header", prefix("/a"), header),
        rule("method", prefix("/a"), |condition| condition.method = Some(StringMatch::exact("GET"))),
        rule("long", prefix("/a/b/c"), |_| {}),
        rule("exact", Some(StringMatch::exact("/")), |_| {}),
    ];
    let sorted = by_precedence(rules);
    let names: Vec<_> = sorted.iter().map(|rule| &*rule.name).collect();
    let wanted = ["exact", "long", "method", "header", "query", "short", "short again", "regex", "everything"];
    assert_eq!(names, wanted);
}
