//! The operator's API: listing viewers, and ending a viewer or a publisher.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot::Receiver;
use tracing::info;

use super::reply::{Reply, said};
use crate::live::key::StreamKey;
use crate::protocol::http::request::Request;
use crate::server::roster::{self, Entry, Kick, LIMIT_MAX, Query, ViewerName};
use crate::server::shared::{Shared, Source};

/// How long loops may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of viewers in an answer if the request does not give one.
const LIMIT: usize = 200;

#[derive(Serialize)]
struct Listing {
    /// The number of viewers, listed or not.
    total: usize,
    /// Some of them, in the order in which they started.
    viewers: Vec<Entry>,
}

/// `GET /api/v1/viewers?stream=app/name&limit=200`.
pub(super) async fn list(shared: &Shared, request: &Request) -> Reply {
    let stream = match request.query("stream").filter(|name| !name.is_empty()).map(StreamKey::parse) {
        None => None,
        Some(Ok(key)) => Some(key),
        Some(Err(error)) => return said(400, &error.to_string()),
    };
    let limit = match request.query("limit").map(str::parse) {
        None => LIMIT,
        Some(Ok(limit)) if limit <= LIMIT_MAX => limit,
        Some(_) => return said(400, &format!("limit is a number up to {LIMIT_MAX}.")),
    };
    let Some(lists) = all(roster::ask(shared, &Query { stream, limit })).await else { return hangs() };
    let total = lists.iter().map(|list| list.total).sum();
    let mut viewers: Vec<Entry> = lists.into_iter().flat_map(|list| list.entries).collect();
    viewers.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
    viewers.truncate(limit);
    let json = serde_json::to_string(&Listing { total, viewers }).expect("plain data");
    Reply::new(200, "application/json", json)
}

/// `DELETE /api/v1/viewers/{id}`.
pub(super) async fn kick(shared: &Shared, id: &str) -> Reply {
    let name: ViewerName = match id.parse() {
        Ok(name) => name,
        Err(_) => return said(404, "There is no such viewer: take an id from /api/v1/viewers."),
    };
    let gone = || said(404, "This viewer has already left.");
    let Some(answer) = roster::kick(shared, name) else { return gone() };
    match all(vec![answer]).await.map(|kicks| kicks.first().copied()) {
        None => hangs(),
        Some(Some(Kick::Done)) => Reply::new(204, "", ""),
        Some(Some(Kick::Gone) | None) => gone(),
        Some(Some(Kick::Forward)) => {
            said(409, "This is one of the server's own forwards: remove its [[forward]] to end it.")
        }
    }
}

/// `DELETE /api/v1/streams/{app}/{name}`: ends its publisher, but not the stream: another publisher may take it
/// over.
pub(super) async fn kick_publisher(shared: &Shared, name: &str) -> Reply {
    let key = match StreamKey::parse(name) {
        Ok(key) => key,
        Err(error) => return said(400, &error.to_string()),
    };
    let mut roles = shared.roles.iter();
    let Some(origin) = roles.find(|role| matches!(role.source, Source::Publishers)) else {
        return said(404, "This process takes no publishers: ask the origin.");
    };
    let Some((stream, live)) = origin.directory.list().into_iter().find(|(stream, _)| stream.key == key)
    else {
        return said(404, &format!("There is no stream {key}."));
    };
    if !live {
        return said(404, &format!("No publisher of {key} is connected."));
    }
    match all(roster::kick_publisher(shared, &stream)).await {
        None => hangs(),
        Some(kicked) if kicked.contains(&true) => {
            info!(stream = key.as_str(), "an operator has kicked a publisher");
            Reply::new(204, "", "")
        }
        Some(_) => said(409, &format!("The server itself publishes {key}: remove its [[pull]] to end it.")),
    }
}

/// The answers of loops, without those of loops that have ended; `None` if a loop does not answer in time.
async fn all<T>(answers: Vec<Receiver<T>>) -> Option<Vec<T>> {
    let every = async {
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.extend(answer.await.ok());
        }
        all
    };
    tokio::time::timeout(PATIENCE, every).await.ok()
}

fn hangs() -> Reply {
    said(503, "A loop does not answer; see /livez.")
}
