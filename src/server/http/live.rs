//! A request for a live stream.

use bytes::Bytes;

use crate::live::key::StreamKey;
use crate::protocol::http::error_page;
use crate::protocol::http::request::{Method, Request};
use crate::protocol::ws;
use crate::server::core::Core;
use crate::server::viewers::play::{Options, Play, Via};
use crate::server::viewers::player::patience;
use crate::uring::Engine;

/// What a request plays, or the answer that refuses it.
pub(super) fn play<E: Engine>(
    core: &Core<E>,
    role: usize,
    request: &Request,
    name: &str,
) -> Result<Play, Refusal> {
    let refuse =
        |status, message: String| Refusal { status, page: error_page(status, &message, false, false).into() };
    let key = StreamKey::parse(name).map_err(|error| refuse(400, error.to_string()))?;
    let via = match request.websocket_key() {
        Ok(None) => Via::Http,
        Ok(Some(key)) => {
            let offered = request.header("sec-websocket-protocol");
            let protocol = offered.and_then(ws::first_protocol).map(str::to_owned);
            Via::WebSocket { key, protocol }
        }
        Err(error) => return Err(Refusal { status: error.status(), page: error.page().into() }),
    };
    let options = Options::parse(|name| request.query(name).map(str::to_owned))
        .map_err(|error| refuse(400, error.to_string()))?;
    if core.is_draining() {
        return Err(refuse(503, "This server is shutting down; try another one.".to_owned()));
    }
    Ok(Play {
        key,
        options,
        after: None,
        via,
        since: core.now(),
        patience: patience(core.role(role).wait, request.header("prefer")),
        head_only: request.method == Method::Head,
    })
}

/// The last answer of a connection.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) page: Bytes,
}
