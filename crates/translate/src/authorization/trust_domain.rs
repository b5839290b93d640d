//! Identities of one trust domain standing for those of the mesh's own and its aliases.

use meltemi_config::wire::Str;

/// In a principal, the mesh's own trust domain whatever it is called.
const LOCAL: &str = "cluster.local";

/// Principals (`<trust domain>/ns/<namespace>/sa/<account>`, with wildcards) with those of the other trust domains of the mesh.
/// One that names no trust domain, or one of another mesh, stays as it is.
pub fn principals(values: &[Str], trust_domains: &[Str]) -> Vec<Str> {
    let mut found = Vec::new();
    for value in values {
        match named(value) {
            Some((domain, rest)) if domain == LOCAL || trust_domains.iter().any(|own| overlaps(domain, own)) => {
                found.extend(in_every(value, domain, rest, trust_domains));
            }
            _ => found.push(value.clone()),
        }
    }
    found
}

/// The trust domain and the rest of a whole principal that does not leave the former open.
fn named(principal: &str) -> Option<(&str, &str)> {
    let (domain, rest) = principal.split_once('/')?;
    (rest.split('/').count() == 4 && domain != "*").then_some((domain, rest))
}

fn in_every(principal: &Str, domain: &str, rest: &str, trust_domains: &[Str]) -> Vec<Str> {
    let mut found: Vec<Str> = Vec::new();
    for own in trust_domains {
        // `*-td` matches all that end so, and need not be replaced by one of them.
        let covered = domain.strip_prefix('*').is_some_and(|suffix| own.ends_with(suffix));
        let new: Str = if covered { principal.clone() } else { format!("{own}/{rest}").into() };
        if !found.contains(&new) {
            found.push(new);
        }
    }
    found
}

/// Equal, or one matches the other as a pattern with a wildcard at one end.
fn overlaps(a: &str, b: &str) -> bool {
    let covers = |pattern: &str, text: &str| {
        pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
            || pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
    };
    a == b || covers(a, b) || covers(b, a)
}

/// Trust domains with all of the mesh's where one of them is named.
pub fn expanded(values: &[Str], trust_domains: &[Str]) -> Vec<Str> {
    let mut found: Vec<Str> = Vec::new();
    for value in values {
        let all = if trust_domains.contains(value) { trust_domains } else { std::slice::from_ref(value) };
        for domain in all {
            if !found.contains(domain) {
                found.push(domain.clone());
            }
        }
    }
    found
}
