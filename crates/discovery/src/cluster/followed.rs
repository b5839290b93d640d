//! The Gateway API's objects, as they were last seen.

use std::sync::Arc;

use meltemi_gateway_api::Catalogue;
use meltemi_store::ConfigSet;

use crate::State;

#[derive(Default)]
pub(super) struct Followed {
    pub catalogue: Catalogue,
    pub set: Arc<ConfigSet>,
}

impl Followed {
    /// Takes over what has changed; true where what is derived may come out differently.
    pub fn follow(&mut self, state: &State) -> bool {
        let set = state.config.load_full();
        let mut differs = false;
        for key in self.set.diff(&set).keys() {
            differs |= self.catalogue.take(key, set.get(key));
        }
        self.set = set;
        differs
    }
}
