//! HLS as a player fetches it: the playlist (RFC 8216, 6.3), then each of its segments, and a clock that tells
//! when a player would have had nothing to play.
//!
//! It checks the server and therefore shares no code with the server's own playlists.

use std::collections::VecDeque;

use super::answer::Answer;
use super::{Appetite, Fault, Input, Progress};
use crate::tools::stress::args::Target;

const PLAYLIST_MAX: usize = 1 << 20;
/// How far from a live playlist's end a player starts, in segments.
const START_DISTANCE: u64 = 3;
/// Length of a transport stream's packet, and its first byte.
const TS_PACKET: usize = 188;
const TS_SYNC: u8 = 0x47;

#[derive(Debug)]
pub(in crate::tools::stress) struct HlsSession {
    sampled: bool,
    /// The playlist's path; at first that of the master, until it has named another.
    playlist: String,
    state: State,
    answer: Answer,
    /// The playlist, while it is received.
    text: Vec<u8>,
    check: Check,
    asked: u64,
    /// Parts to fetch, in order.
    queue: VecDeque<Part>,
    /// Number of the segment after the queued ones.
    next: Option<u64>,
    map: Option<String>,
    /// When the playlist must be loaded again; none: it has ended.
    reload: Option<u64>,
    /// When the first segment began to play, without stalls, and what has been fetched since, in microseconds.
    began: Option<u64>,
    fetched: u64,
}

/// Something to fetch; an init segment has no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    path: String,
    micros: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Playlist,
    Part(Part),
    Resting,
}

impl HlsSession {
    pub(super) fn new(target: &Target, sampled: bool) -> Self {
        Self {
            sampled,
            playlist: target.path.clone(),
            state: State::Resting,
            answer: Answer::default(),
            text: Vec::new(),
            check: Check::default(),
            asked: 0,
            queue: VecDeque::new(),
            next: None,
            map: None,
            reload: Some(0),
            began: None,
            fetched: 0,
        }
    }

    pub(super) fn appetite(&self) -> Appetite {
        match self.state {
            State::Part(_) => self.answer.appetite(self.sampled),
            State::Playlist | State::Resting => Appetite::Bytes,
        }
    }

    pub(super) fn is_resting(&self) -> bool {
        self.state == State::Resting
    }

    pub(super) fn is_dry(&self, now: u64) -> bool {
        self.reload.is_some() && self.began.is_some_and(|began| now > began + self.fetched)
    }

    /// Requests the next part, or returns when to call again.
    pub(super) fn speak(&mut self, target: &Target, now: u64) -> Progress {
        if let Some(part) = self.queue.pop_front() {
            let output = target.request(&part.path).into_bytes();
            self.check = Check::default();
            return self.ask(State::Part(part), output, now);
        }
        match self.reload {
            Some(at) if at <= now => {
                let output = target.request(&self.playlist).into_bytes();
                self.ask(State::Playlist, output, now)
            }
            wake => {
                self.state = State::Resting;
                Progress { wake, ..Progress::default() }
            }
        }
    }

    fn ask(&mut self, state: State, output: Vec<u8>, now: u64) -> Progress {
        self.state = state;
        self.answer = Answer::default();
        self.asked = now;
        Progress { output, ..Progress::default() }
    }

    pub(super) fn take(&mut self, target: &Target, input: Input<'_>, now: u64) -> Result<Progress, Fault> {
        let (text, check) = (&mut self.text, &mut self.check);
        let is_playlist = self.state == State::Playlist;
        let (bytes, whole) = match self.state {
            State::Playlist => self.answer.take(input, |piece| text.extend_from_slice(piece))?,
            State::Part(_) => self.answer.take(input, |piece| check.take(piece))?,
            State::Resting => return Err(Fault::NoAnswer),
        };
        if self.text.len() > PLAYLIST_MAX {
            return Err(Fault::Playlist("it is too long"));
        }
        if !whole {
            return Ok(Progress { bytes, ..Progress::default() });
        }
        let (answered, closes) = (Some(now - self.asked), self.answer.closes);
        let mut ran_dry = false;
        if is_playlist {
            self.read_playlist(now)?;
        } else if let State::Part(part) = std::mem::replace(&mut self.state, State::Resting) {
            if self.sampled {
                self.check.end()?;
            }
            ran_dry = self.play(part.micros, now);
        }
        let has_picture = self.began.is_some();
        let next = if closes {
            self.state = State::Resting;
            Progress { wake: Some(now), ..Progress::default() }
        } else {
            self.speak(target, now)
        };
        Ok(Progress { bytes, has_picture, answered, ran_dry, closes, ..next })
    }

    /// A segment of `micros` microseconds is complete: advances the clock, and returns whether the segment came
    /// too late.
    fn play(&mut self, micros: u64, now: u64) -> bool {
        if micros == 0 {
            return false;
        }
        let began = *self.began.get_or_insert(now);
        let late = now.saturating_sub(began + self.fetched);
        self.began = Some(began + late);
        self.fetched += micros;
        late > 0
    }

    fn read_playlist(&mut self, now: u64) -> Result<(), Fault> {
        let text = String::from_utf8(std::mem::take(&mut self.text));
        let text = text.map_err(|_| Fault::Playlist("it is not UTF-8"))?;
        if !text.starts_with("#EXTM3U") {
            return Err(Fault::Playlist("it does not begin with #EXTM3U"));
        }
        if text.contains("#EXT-X-STREAM-INF") {
            let first = text.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
            let first = first.ok_or(Fault::Playlist("it is a master playlist that names no other"))?;
            self.playlist = resolve(&self.playlist, first)?;
            return Ok(());
        }
        let playlist = Playlist::parse(&text);
        let end = playlist.sequence + playlist.segments.len() as u64;
        let start = if playlist.ended { playlist.sequence } else { end.saturating_sub(START_DISTANCE) };
        let next = self.next.unwrap_or(start.max(playlist.sequence));
        if playlist.sequence > next {
            return Err(Fault::Playlist("segments were removed before they could be fetched"));
        }
        if end < next {
            return Err(Fault::Playlist("the sequence went back"));
        }
        let new = usize::try_from(next - playlist.sequence).unwrap_or(usize::MAX);
        for (micros, uri, map) in playlist.segments.into_iter().skip(new) {
            if map.is_some() && map != self.map {
                let init = resolve(&self.playlist, map.as_deref().unwrap_or_default())?;
                self.queue.push_back(Part { path: init, micros: 0 });
                self.map = map;
            }
            self.queue.push_back(Part { path: resolve(&self.playlist, uri)?, micros });
        }
        self.next = Some(end);
        // Half of it if nothing had changed (6.3.4).
        let pause = playlist.target * 1_000_000 / if self.queue.is_empty() { 2 } else { 1 };
        self.reload = (!playlist.ended).then_some(now + pause);
        Ok(())
    }
}

/// The content of a media playlist.
#[derive(Debug, Default)]
struct Playlist<'a> {
    target: u64,
    sequence: u64,
    ended: bool,
    /// Microseconds, URI and init segment of each.
    segments: Vec<(u64, &'a str, Option<String>)>,
}

impl<'a> Playlist<'a> {
    fn parse(text: &'a str) -> Self {
        let mut playlist = Self::default();
        let (mut micros, mut map) = (None, None);
        for line in text.lines() {
            let number = |name: &str| line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
            if let Some(target) = number("#EXT-X-TARGETDURATION:") {
                playlist.target = target;
            } else if let Some(sequence) = number("#EXT-X-MEDIA-SEQUENCE:") {
                playlist.sequence = sequence;
            } else if line.starts_with("#EXT-X-ENDLIST") {
                playlist.ended = true;
            } else if let Some(rest) = line.strip_prefix("#EXT-X-MAP:") {
                map = rest.split("URI=\"").nth(1).and_then(|uri| uri.split('"').next()).map(str::to_owned);
            } else if let Some(rest) = line.strip_prefix("#EXTINF:") {
                micros = rest.split(',').next().and_then(|seconds| seconds.trim().parse::<f64>().ok());
            } else if !line.is_empty()
                && !line.starts_with('#')
                && let Some(seconds) = micros.take()
            {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration")]
                let micros = (seconds.clamp(0.0, 86_400.0) * 1e6) as u64;
                playlist.segments.push((micros, line, map.clone()));
            }
        }
        playlist
    }
}

/// The path of `uri`, as used in the playlist at `path`.
fn resolve(path: &str, uri: &str) -> Result<String, Fault> {
    if uri.contains("://") {
        return Err(Fault::Playlist("it names another host"));
    }
    let folder = path.split('?').next().unwrap_or_default().rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(if uri.starts_with('/') { uri.to_owned() } else { format!("{folder}/{uri}") })
}

/// Checks a part's bytes: packets of a transport stream, or boxes of a fragment.
#[derive(Debug, Default)]
struct Check {
    at: usize,
    head: Vec<u8>,
    is_broken: bool,
}

impl Check {
    fn take(&mut self, bytes: &[u8]) {
        let space = 8 - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(space)]);
        if self.head.first() == Some(&TS_SYNC) {
            let first = (TS_PACKET - self.at % TS_PACKET) % TS_PACKET;
            self.is_broken |= bytes.iter().skip(first).step_by(TS_PACKET).any(|byte| *byte != TS_SYNC);
        }
        self.at += bytes.len();
    }

    fn end(&self) -> Result<(), Fault> {
        let good = match self.head.as_slice() {
            [TS_SYNC, ..] => !self.is_broken && self.at.is_multiple_of(TS_PACKET),
            [_, _, _, _, name @ ..] => [b"ftyp", b"styp", b"moof"].iter().any(|one| *one == name),
            _ => false,
        };
        if good { Ok(()) } else { Err(Fault::Segment) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    struct Server {
        session: HlsSession,
        target: Target,
        asked: String,
        now: u64,
    }

    impl Server {
        fn new() -> Self {
            let target = Target::resolve("http://127.0.0.1:1/hls/a/index.m3u8", &Default::default()).unwrap();
            let session = HlsSession::new(&target, true);
            let mut server = Self { session, target, asked: String::new(), now: 0 };
            server.wake(0);
            server
        }

        fn wake(&mut self, now: u64) {
            self.now = now;
            let progress = self.session.speak(&self.target, now);
            self.note(&progress);
        }

        fn note(&mut self, progress: &Progress) {
            let text = String::from_utf8_lossy(&progress.output).into_owned();
            self.asked = text.split(' ').nth(1).unwrap_or_default().to_owned();
        }

        fn answer(&mut self, body: &[u8]) -> Result<Progress, Fault> {
            let mut wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            wire.extend_from_slice(body);
            let progress = self.session.take(&self.target, Input::Bytes(&wire), self.now)?;
            self.note(&progress);
            Ok(progress)
        }
    }

    fn live(sequence: u64, count: u64) -> Vec<u8> {
        let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n");
        (sequence..sequence + count).for_each(|n| text += &format!("#EXTINF:4.000,\nsegment_{n}.ts\n"));
        text.into_bytes()
    }

    fn segment() -> Vec<u8> {
        let mut packet = [0; TS_PACKET];
        packet[0] = TS_SYNC;
        packet.repeat(5)
    }

    #[test]
    fn a_live_playlist_is_followed_from_three_segments_before_its_end() {
        let mut server = Server::new();
        assert_eq!(server.asked, "/hls/a/index.m3u8");
        server.answer(&live(7, 5)).unwrap();
        for n in [9, 10, 11] {
            assert_eq!(server.asked, format!("/hls/a/segment_{n}.ts"));
            assert!(!server.answer(&segment()).unwrap().ran_dry);
        }
        assert!(server.session.is_resting() && !server.session.is_dry(12 * SECOND));
        server.wake(4 * SECOND);
        let unchanged = server.answer(&live(7, 5)).unwrap();
        assert_eq!(unchanged.wake, Some(6 * SECOND));
        server.wake(13 * SECOND);
        server.answer(&live(8, 5)).unwrap();
        assert_eq!(server.asked, "/hls/a/segment_12.ts");
        assert!(server.answer(&segment()).unwrap().ran_dry, "a second late");
        assert!(!server.session.is_dry(17 * SECOND) && server.session.is_dry(17 * SECOND + 1));
    }

    #[test]
    fn a_fragmented_stream_has_its_init_segment_fetched_once() {
        let mut server = Server::new();
        server.answer(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nvideo.m3u8\n").unwrap();
        assert_eq!(server.asked, "/hls/a/video.m3u8");
        let list = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4,\n1.m4s\n#EXTINF:4,\n2.m4s\n#EXT-X-ENDLIST\n";
        server.answer(list).unwrap();
        for path in ["init.mp4", "1.m4s", "2.m4s"] {
            assert_eq!(server.asked, format!("/hls/a/{path}"));
            server.answer(b"\0\0\0\x08moof").unwrap();
        }
        assert!(server.session.is_resting() && !server.session.is_dry(u64::MAX));
    }

    #[test]
    fn invalid_playlists_are_reported() {
        let mut server = Server::new();
        server.answer(&live(7, 1)).unwrap();
        server.answer(&segment()).unwrap();
        for (sequence, what) in
            [(9, "segments were removed before they could be fetched"), (5, "the sequence went back")]
        {
            server.wake(100 * SECOND);
            assert_eq!(server.answer(&live(sequence, 1)), Err(Fault::Playlist(what)));
            server.session.reload = Some(0);
        }
        server.wake(100 * SECOND);
        assert_eq!(server.answer(b"<html>"), Err(Fault::Playlist("it does not begin with #EXTM3U")));
    }

    #[test]
    fn a_truncated_or_shifted_segment_is_found() {
        for wrong in [&segment()[1..], &segment()[..200], &[0; 376][..], &[]] {
            let mut server = Server::new();
            server.answer(&live(7, 1)).unwrap();
            assert_eq!(server.answer(wrong), Err(Fault::Segment));
        }
    }
}
