//! Texts that a pattern matches, and texts that it nearly does.

/// What stands for a part that a pattern leaves open.
const OPEN: &str = "x";

/// The text, and one more, one less, or another letter at each end; nothing; and something else.
pub fn near(text: &str) -> Vec<String> {
    let mut all =
        vec![text.to_owned(), format!("{OPEN}{text}"), format!("{text}{OPEN}"), format!("{OPEN}{text}{OPEN}")];
    let mut shorter = text.chars();
    if shorter.next().is_some() {
        all.push(shorter.as_str().to_owned());
        shorter = text.chars();
        shorter.next_back();
        all.push(shorter.as_str().to_owned());
    }
    all.push(other_case(text));
    all.extend(["".to_owned(), "other".to_owned()]);
    dedup(all)
}

/// Near what a pattern with a star at one end, or in the middle, asks for; the pattern itself is a text, too.
pub fn patterns(pattern: &str) -> Vec<String> {
    let mut all = vec![pattern.to_owned()];
    for core in [pattern.strip_prefix('*'), pattern.strip_suffix('*')].into_iter().flatten() {
        all.extend(near(&core.replace('*', OPEN)));
    }
    if !pattern.starts_with('*') && !pattern.ends_with('*') {
        all.extend(near(pattern));
        all.extend(near(&pattern.replace('*', OPEN)));
    }
    dedup(all)
}

pub fn hosts(pattern: &str) -> Vec<String> {
    let mut all = patterns(pattern);
    let core = pattern.trim_matches('*').to_owned();
    all.extend([format!("{core}:80"), format!("{core}."), format!("{OPEN}.{core}")]);
    dedup(all)
}

/// With queries, fragments and what else may be behind or within a path.
pub fn paths(pattern: &str) -> Vec<String> {
    let mut all = Vec::new();
    for one in filled(pattern) {
        let of_one = patterns(&one).into_iter().map(rooted);
        all.extend(of_one);
        let core = rooted(one.trim_matches('*').to_owned());
        let behind = ["?q=1", "#f", "/", ";p=1", "%2Fx", "/.."];
        all.extend(behind.map(|behind| format!("{core}{behind}")));
        all.extend([format!("/{core}"), core.replacen('/', "//", 2), core.replacen('/', "%2F", 2)]);
    }
    dedup(all.into_iter().map(rooted).collect())
}

/// A template with its parts put in: for `{*}` one segment, none, or two, for `{**}` any number.
fn filled(template: &str) -> Vec<String> {
    if !template.contains("{*}") && !template.contains("{**}") {
        return vec![template.to_owned()];
    }
    let many = ["one", "", "two/parts", "three/more/parts", "one/"];
    let one = ["one", "", "two/parts", "o;n=e", "%2F", "\u{e9}"];
    let put = |many| one.map(|one| template.replace("{**}", many).replace("{*}", one));
    many.into_iter().flat_map(put).collect()
}

fn rooted(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

fn other_case(text: &str) -> String {
    text.chars().map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}

fn dedup(all: Vec<String>) -> Vec<String> {
    let mut known = std::collections::HashSet::new();
    all.into_iter().filter(|one| known.insert(one.clone())).collect()
}
