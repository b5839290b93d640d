use super::*;

#[test]
fn a_missing_program_says_what_to_install() {
    let program = Program { flavour: Some("nonesuch"), lock_file: None };
    let error = put(&Capture::default(), &Backend::Iptables(program), false).unwrap_err().to_string();
    assert!(error.starts_with("iptables-nonesuch-save is missing"), "{error}");
    assert!(error.contains("apt-get install iptables"), "{error}");
}
