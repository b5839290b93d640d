//! Keeps the keys and tokens of this process out of core files and from other processes of the same user.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Set to 1, a debugger may attach and a crash leaves a core file with every key in it.
const ALLOWED: &str = "MELTEMI_DUMPABLE";

/// For processes that hold keys, before they have any. Children that run another program are dumpable again, without core
/// files.
pub fn begin() {
    if std::env::var_os(ALLOWED).is_some_and(|value| value == "1") {
        tracing::info!("{ALLOWED}=1: core files and debuggers see the keys of this process");
        return;
    }
    let limited = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    if let Err(error) = limited.and_then(|()| prctl::set_dumpable(false)) {
        tracing::warn!(%error, "core files of this process would hold its keys");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::getrlimit;

    #[test]
    fn a_process_that_holds_keys_leaves_no_core_file() {
        begin();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
        prctl::set_dumpable(true).unwrap();
    }
}
