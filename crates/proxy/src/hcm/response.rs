//! What happens to every response head on its way out.

use http::header;
use meltemi_http::{RequestHead, ResponseHead, name};
use meltemi_plan::hcm::ServerHeader;

use super::Context;

/// Completes a response head as Envoy's connection manager does. `upstream`: it came from a host.
pub(super) fn complete(
    context: &Context,
    head: &mut ResponseHead,
    request: Option<&RequestHead>,
    now: std::time::SystemTime,
) {
    let plan = &*context.http.plan;
    if !head.headers.contains(&header::DATE) {
        head.headers.append(header::DATE, context.worker.date(now));
    }
    let own = &context.http.server;
    match plan.server_header {
        ServerHeader::Overwrite => {
            if let Some(own) = own {
                head.headers.insert(header::SERVER, own.clone());
            }
        }
        ServerHeader::AppendIfAbsent if !head.headers.contains(&header::SERVER) => {
            if let Some(own) = own {
                head.headers.append(header::SERVER, own.clone());
            }
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if let Some(via) = &context.http.via {
        super::request::append_list(&mut head.headers, header::VIA, via, ", ");
    }
    let Some(request) = request else { return };
    let wants_id = plan.always_set_request_id_in_response || request.headers.contains(&name::X_ENVOY_FORCE_TRACE);
    if wants_id && let Some(id) = request.headers.get(&name::X_REQUEST_ID) {
        head.headers.insert(name::X_REQUEST_ID, id.clone());
    }
}
