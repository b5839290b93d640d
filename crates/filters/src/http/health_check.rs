//! `envoy.filters.http.health_check`: answers health checks itself.

use std::sync::Arc;

use meltemi_http::{RequestHead, StatusCode};
use meltemi_plan::HeaderMatcher;
use meltemi_plan::filter::HealthCheckFilter;

use crate::info::StreamInfo;
use crate::lookup::RequestFields;
use crate::reply::{Flow, LocalReply};

pub(crate) struct HealthCheck(pub Arc<HealthCheckFilter>);

impl HealthCheck {
    pub fn on_request(&self, head: &RequestHead, info: &mut StreamInfo) -> Flow {
        if !HeaderMatcher::all_match(&self.0.headers, &RequestFields(head)) {
            return Flow::Continue;
        }
        info.is_health_check = true;
        if self.0.pass_through {
            return Flow::Continue;
        }
        LocalReply::new(StatusCode::OK, "", "health_check_ok").into()
    }
}
