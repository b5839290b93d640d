//! Where configuration comes from: a watched folder of files, memory, or one with the other over it. Either way a reader
//! sees immutable `ConfigSet`s and, between two of them, a `ChangeSet`.
//!
//! Owns: which objects are in force, and what is wrong with the others. Must never interpret a spec. A change costs
//! work for the files that changed and for the kinds and namespaces that it touches; the rest is shared.

mod file;
mod memory;
mod overlay;
mod set;
mod watch;

pub use file::{FileStore, FileStoreOptions, StoreError};
pub use memory::MemoryStore;
pub use overlay::OverlayStore;
pub use set::{ChangeSet, ConfigSet};
pub use watch::{Changes, ConfigStore};
