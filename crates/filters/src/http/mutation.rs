//! `envoy.filters.http.header_mutation`.

use std::sync::Arc;

use meltemi_http::{RequestHead, ResponseHead};
use meltemi_plan::FilterOverride;
use meltemi_plan::filter::HeaderMutationFilter;

use crate::format::Scope;
use crate::headers;
use crate::info::StreamInfo;

pub(crate) struct HeaderMutation(Arc<HeaderMutationFilter>);

impl HeaderMutation {
    pub fn new(config: Arc<HeaderMutationFilter>) -> Self {
        Self(config)
    }

    /// The filter's own mutations, then those of each level from the widest to the most specific.
    fn configs(&self, filter: &str, info: &StreamInfo) -> impl Iterator<Item = Arc<HeaderMutationFilter>> {
        let own = info.filter_overrides(filter).filter_map(|level| match level {
            FilterOverride::HeaderMutation(own) => Some(own.clone()),
            _ => None,
        });
        std::iter::once(self.0.clone()).chain(own)
    }

    pub fn on_request(&self, filter: &str, head: &mut RequestHead, info: &StreamInfo) {
        for config in self.configs(filter, info) {
            headers::mutate_request(&config.request, head, info);
        }
    }

    pub fn on_response(&self, filter: &str, (request, head): (&RequestHead, &mut ResponseHead), info: &StreamInfo) {
        for config in self.configs(filter, info) {
            let scope = Scope { request: Some(request), ..Scope::new(info) };
            headers::mutate_response(&config.response, head, &scope);
        }
    }
}
