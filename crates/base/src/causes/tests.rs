use std::fmt;

use super::*;

#[derive(Debug)]
struct Told(&'static str, Option<Box<Told>>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

fn told(texts: &[&'static str]) -> String {
    let mut chain = None;
    for text in texts.iter().rev() {
        chain = Some(Box::new(Told(text, chain)));
    }
    causes(&*chain.unwrap())
}

#[test]
fn a_cause_is_told_once() {
    assert_eq!(told(&["a.yaml"]), "a.yaml");
    assert_eq!(told(&["a.yaml", "not there"]), "a.yaml: not there");
    assert_eq!(told(&["a.yaml: not there", "not there"]), "a.yaml: not there");
    assert_eq!(told(&["opening", "a.yaml: not there", "not there"]), "opening: a.yaml: not there");
    assert_eq!(told(&["not there, and gone", "not there"]), "not there, and gone: not there");
}
