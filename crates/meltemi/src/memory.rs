//! Giving memory back to the system.
//!
//! The allocator returns freed pages when it next works on them, which in a process at rest is never: what reading the bootstrap
//! took (some 14 MiB) would stay. Costs well under a millisecond.

/// Returns what is free of this thread's heap to the system.
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: `mi_collect` takes no pointer and may be called at any time from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
