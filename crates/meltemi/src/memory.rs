//! Giving memory back to the system.
//!
//! The allocator returns freed pages when it next works on them, which in a process at rest is never: what reading the bootstrap
//! took (some 14 MiB) would stay. So would the pages of the program that only its start reads (the command line, the
//! descriptors of JSON, what the loader relocates), which count as resident although the system could have them. Costs about a
//! millisecond.

use std::ffi::c_void;

#[cfg(test)]
mod tests;

/// Returns what is free of this thread's heap to the system.
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: `mi_collect` takes no pointer and may be called at any time from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Takes the pages of mapped files that hold nothing of this process's own out of its resident set. What runs or is read again
/// is mapped again from the page cache at a microsecond for 64 KiB.
#[allow(unsafe_code)]
pub fn give_back_program() {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for (start, end) in clean_file_mappings(&smaps) {
        // SAFETY: the range is a mapping of a file that cannot be written and of which no page was changed, so that each page
        // is read again from the file with what it held. Nothing is unmapped.
        unsafe {
            nix::libc::madvise(start as *mut c_void, end - start, nix::libc::MADV_DONTNEED);
        }
    }
}

/// The ranges of read-only file mappings without a changed page.
fn clean_file_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [range, permissions, _, _, inode, ..] if range.contains('-') => {
                let read_only =
                    permissions.starts_with('r') && !permissions.contains('w') && !permissions.contains('s');
                let bounds = range.split_once('-').and_then(|(start, end)| {
                    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
                });
                current = bounds.filter(|_| read_only && inode != "0");
            }
            ["Private_Dirty:" | "Anonymous:" | "Locked:", amount, ..] if amount != "0" => current = None,
            // The last line of each mapping.
            ["VmFlags:", ..] => found.extend(current.take()),
            _ => {}
        }
    }
    found
}
