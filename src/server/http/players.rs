//! Players of playlists and segments: who they are, and whether there may be another one.

use std::net::IpAddr;

use super::routes::stream_of;
use super::web::Web;
use crate::live::key::StreamKey;
use crate::protocol::http::{FileKind, RelPath};
use crate::server::core::Core;
use crate::server::files::entry::Entry;
use crate::server::limits::Refused;
use crate::uring::Engine;

/// Notes a client that asks for a file of a stream. `viewer`: its address and user agent.
///
/// # Errors
/// [`Refused::Egress`] when it asks for a playlist, does not play the stream yet, and the server sends as much as it may.
pub(super) fn admit<E: Engine>(
    core: &Core<E>,
    web: &mut Web,
    role: usize,
    viewer: (Option<IpAddr>, Option<&str>),
    (path, entry): (&RelPath, &Entry),
) -> Result<(), Refused> {
    let Some(site) = &core.shared.roles[role].files else { return Ok(()) };
    if !matches!(entry.kind, FileKind::Playlist | FileKind::Segment) {
        return Ok(());
    }
    let (notes, now) = (web.files.notes.entry(role).or_default(), core.now());
    let limit = core.shared.config.limits.egress;
    if entry.kind == FileKind::Playlist && limit.bits > 0 {
        let is_admitted = || core.shared.egress.admit(limit, bitrate(core, path));
        if !notes.may_play(&site.audience, path, viewer, now, is_admitted) {
            return Err(Refused::Egress);
        }
    }
    notes.note(&site.audience, path, entry.kind, viewer, entry.target, now);
    Ok(())
}

/// Bits a second of the stream that a file belongs to; 0 if it is not live in this process.
fn bitrate<E: Engine>(core: &Core<E>, path: &RelPath) -> u64 {
    let key = stream_of(path).and_then(|name| StreamKey::parse(&name).ok());
    let of = |key| core.shared.roles.iter().find_map(|role| role.directory.get(&key));
    let stream = key.and_then(of);
    stream.map_or(0, |stream| stream.bitrate(core.now()))
}
