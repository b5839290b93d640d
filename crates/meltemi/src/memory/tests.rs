use super::*;

fn mapping(header: &str, dirty: u32) -> String {
    format!(
        "{header}\nRss: 64 kB\nPrivate_Dirty: {dirty} kB\nAnonymous: {dirty} kB\nLocked: 0 kB\nVmFlags: rd mr mw me\n"
    )
}

#[test]
fn only_unchanged_files_that_cannot_be_written_are_given_back() {
    let check = |header: &str, dirty, expected: &[(usize, usize)]| {
        assert_eq!(clean_file_mappings(&mapping(header, dirty)), expected, "{header}");
    };
    check("1000-3000 r-xp 00000000 fe:00 42    /bin/m", 0, &[(0x1000, 0x3000)]);
    check("1000-3000 r--p 00000000 fe:00 42    /bin/m", 0, &[(0x1000, 0x3000)]);
    check("1000-3000 r--p 00000000 fe:00 42    /bin/m", 8, &[]);
    check("1000-3000 rw-p 00000000 fe:00 42    /bin/m", 0, &[]);
    check("1000-3000 r--s 00000000 fe:00 42    /shared", 0, &[]);
    check("1000-3000 r-xp 00000000 00:00 0     [vdso]", 0, &[]);
}

#[test]
fn the_program_goes_on_after_its_pages_were_given_back() {
    give_back_program();
    let resident = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    assert!(resident.contains("Rss:"));
}
