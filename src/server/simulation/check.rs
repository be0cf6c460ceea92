//! What a viewer has received, checked as it arrives, and again at the end against what was pushed.

use super::media::{Frame, Library, Name, Tracks, name_of, slot, version_of};
use crate::live::stream::Selection;
use crate::media::tag::{Class, TAG_HEADER, TAG_TRAILER, Tag, TagKind};
use crate::protocol::rtmp::RtmpError;
use crate::protocol::rtmp::client::{PlayEvent, PlaySession};
use crate::uring::Millis;

/// A frame that a viewer received: its session and number, its timestamp, and when it arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) session: usize,
    pub(super) place: usize,
    pub(super) timestamp: u32,
    pub(super) at: Millis,
}

/// How far a reader has come in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Head,
    FileHeader,
    Tags,
    /// Another answer than the stream.
    Refused(u16),
}

/// The strict reader of one viewer's bytes.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) websocket: bool,
    /// It plays RTMP; the chunks are parsed by the library's own player here, and by other players in the
    /// end-to-end tests.
    pub(super) rtmp: Option<Box<PlaySession>>,
    /// It was told that the stream is over.
    pub(super) was_ended: bool,
    pub(super) selection: Selection,
    /// Its stream comes by a relay, which begins with the newest group of pictures whenever it connects.
    pub(super) may_repeat: bool,
    pub(super) stage: Stage,
    /// Bytes as received and, over WebSocket, those of the messages.
    raw: Vec<u8>,
    flv: Vec<u8>,
    /// Bytes of the current message that are still to come.
    message_left: u64,
    pub(super) close_code: Option<u16>,
    pub(super) pongs: usize,
    /// The newest header version of each kind.
    told: [u32; 3],
    /// The position of the newest header before the first frame.
    rank: usize,
    /// How often the headers started again before the first frame.
    pub(super) restarts: u64,
    times: [Option<u32>; 3],
    picture: bool,
    flags: u8,
    pub(super) seen: Vec<Seen>,
    now: Millis,
}

impl Reader {
    pub(super) fn new(websocket: bool, selection: Selection) -> Self {
        Self {
            websocket,
            rtmp: None,
            was_ended: false,
            selection,
            may_repeat: false,
            stage: Stage::Head,
            raw: Vec::new(),
            flv: Vec::new(),
            message_left: 0,
            close_code: None,
            pongs: 0,
            told: [0; 3],
            rank: 0,
            restarts: 0,
            times: [None; 3],
            picture: false,
            flags: 0,
            seen: Vec::new(),
            now: 0,
        }
    }

    /// Takes bytes from the server.
    pub(super) fn take(&mut self, bytes: &[u8], library: &Library, now: Millis) -> Result<(), String> {
        self.now = now;
        if self.rtmp.is_some() {
            return self.take_rtmp(bytes, library);
        }
        self.raw.extend_from_slice(bytes);
        if self.stage == Stage::Head && !self.head()? {
            return Ok(());
        }
        if let Stage::Refused(_) = self.stage {
            self.raw.clear(); // the text of an error page
            return Ok(());
        }
        if self.websocket {
            self.unframe()?;
        } else {
            self.flv.append(&mut self.raw);
        }
        let mut from = 0;
        while let Some(len) = self.item(from, library)? {
            from += len;
        }
        self.flv.drain(..from);
        Ok(())
    }

    fn take_rtmp(&mut self, bytes: &[u8], library: &Library) -> Result<(), String> {
        let session = self.rtmp.as_mut().expect("asked before");
        let result = session.input(bytes);
        let events: Vec<PlayEvent> = std::iter::from_fn(|| session.poll_event()).collect();
        for event in events {
            match event {
                // RTMP announces no tracks.
                PlayEvent::Begin => (self.stage, self.flags) = (Stage::Tags, 5),
                PlayEvent::Tag(tag) => self.tag(&tag, library)?,
                PlayEvent::End => self.was_ended = true,
            }
        }
        match result {
            Err(RtmpError::Refused { .. }) if self.seen.is_empty() => self.stage = Stage::Refused(404),
            Err(RtmpError::Over) if self.stage == Stage::Refused(404) => {}
            other => other.map_err(|error| error.to_string())?,
        }
        Ok(())
    }

    /// Whether the connection could end here without cutting a tag or message in two.
    pub(super) fn at_boundary(&self) -> bool {
        if let Some(session) = &self.rtmp {
            return session.is_at_boundary();
        }
        self.raw.is_empty() && self.flv.is_empty() && self.message_left == 0
    }

    fn head(&mut self) -> Result<bool, String> {
        let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8(self.raw.drain(..end + 4).collect()).map_err(|e| e.to_string())?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok());
        self.stage = match (status, self.websocket) {
            (Some(200), false) if head.contains("video/x-flv") => Stage::FileHeader,
            (Some(101), true) if head.contains("Sec-WebSocket-Accept") => Stage::FileHeader,
            (Some(status @ (403 | 404 | 502 | 503)), _) => Stage::Refused(status),
            _ => return Err(format!("unexpected answer: {head}")),
        };
        Ok(true)
    }

    /// Removes the framing of messages.
    fn unframe(&mut self) -> Result<(), String> {
        let mut at = 0;
        loop {
            let rest = &self.raw[at..];
            if self.message_left > 0 {
                let len = rest.len().min(usize::try_from(self.message_left).expect("small"));
                if len == 0 {
                    break;
                }
                self.flv.extend_from_slice(&rest[..len]);
                self.message_left -= len as u64;
                at += len;
                continue;
            }
            let Some((opcode, header, len)) = frame_header(rest)? else { break };
            if self.close_code.is_some() {
                return Err("a frame after the close frame".to_owned());
            }
            if opcode == 2 {
                if len == 0 {
                    return Err("an empty message".to_owned());
                }
                self.message_left = len;
                at += header;
                continue;
            }
            let whole = header + usize::try_from(len).expect("short");
            if rest.len() < whole {
                break;
            }
            match opcode {
                8 => self.close_code = Some(u16::from_be_bytes([rest[header], rest[header + 1]])),
                10 if rest[header..whole] == *b"sim" => self.pongs += 1,
                _ => return Err(format!("a frame of opcode {opcode}")),
            }
            at += whole;
        }
        self.raw.drain(..at);
        Ok(())
    }

    /// Reads the file header or a tag at `from`; returns its length once it is complete.
    fn item(&mut self, from: usize, library: &Library) -> Result<Option<usize>, String> {
        let rest = &self.flv[from..];
        if self.stage == Stage::FileHeader {
            let Some(header) = rest.first_chunk::<13>() else { return Ok(None) };
            let flags = header[4];
            if *header != [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
                || flags & !5 != 0
                || flags == 0
            {
                return Err(format!("FLV header {header:?}"));
            }
            self.flags = flags;
            self.stage = Stage::Tags;
            return Ok(Some(13));
        }
        let Some(head) = rest.first_chunk::<TAG_HEADER>() else { return Ok(None) };
        let Some(kind) = TagKind::from_type(head[0]) else { return Err(format!("tag type {}", head[0])) };
        let size = u32::from_be_bytes([0, head[1], head[2], head[3]]);
        let timestamp = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        let whole = TAG_HEADER + size as usize + TAG_TRAILER;
        if rest.len() < whole {
            return Ok(None);
        }
        if rest[whole - 4..whole] != (size + 11).to_be_bytes() || head[8..] != [0; 3] {
            return Err(format!("trailer or stream id of a tag of {size} bytes"));
        }
        let body = rest[TAG_HEADER..whole - TAG_TRAILER].to_vec();
        self.tag(&Tag { kind, timestamp, body: body.into() }, library)?;
        Ok(Some(whole))
    }

    fn tag(&mut self, tag: &Tag, library: &Library) -> Result<(), String> {
        let place = slot(tag.kind);
        if let Some(last) = self.times[place].replace(tag.timestamp)
            && tag.timestamp.wrapping_sub(last).cast_signed() < 0
        {
            let (kind, class, seen) = (tag.kind, tag.class(), self.seen.last());
            return Err(format!(
                "{kind:?} time falls from {last} to {} at {class:?}, {seen:?}",
                tag.timestamp
            ));
        }
        let unwanted = match tag.kind {
            TagKind::Audio => self.selection == Selection::Video,
            TagKind::Video => self.selection == Selection::Audio,
            TagKind::Script => false,
        };
        if unwanted {
            return Err(format!("{:?} was not asked for", tag.kind));
        }
        let class = tag.class();
        if let Class::Metadata | Class::SequenceHeader = class {
            let version = version_of(tag).ok_or("a header without version")?;
            if version == 0 || version > library.versions[place] {
                return Err(format!("{:?} header of version {version}", tag.kind));
            }
            if self.seen.is_empty() {
                // In order; from the first one again if it had to skip before its first frame. A newer
                // version is a change within the log.
                self.restarts += u64::from(place < self.rank && version == self.told[place]);
                self.rank = place + 1;
            }
            self.told[place] = version;
            return Ok(());
        }
        let name = name_of(tag).ok_or("a frame without name")?;
        if library.body(name) != Some(&tag.body) {
            return Err(format!("{name:?} is not what was pushed"));
        }
        if name.version != self.told[place] {
            return Err(format!("{:?} {name:?} under header {}", tag.kind, self.told[place]));
        }
        if tag.kind == TagKind::Video && !std::mem::replace(&mut self.picture, true) && self.flags & 1 == 0 {
            let only_sound = !self.seen.is_empty();
            if !only_sound {
                return Err("a picture that the FLV header did not announce".to_owned());
            }
        }
        self.see(name, tag.timestamp)
    }

    fn see(&mut self, name: Name, timestamp: u32) -> Result<(), String> {
        let Name { session, place, .. } = name;
        if let Some(last) = self.seen.last()
            && (session, place) <= (last.session, last.place)
            && !self.may_repeat
        {
            return Err(format!("{name:?} after {last:?}"));
        }
        self.seen.push(Seen { session, place, timestamp, at: self.now });
        Ok(())
    }
}

type FrameStart = (u8, usize, u64);

/// Opcode, length of the header, length of the payload.
fn frame_header(rest: &[u8]) -> Result<Option<FrameStart>, String> {
    let &[first, second, ..] = rest else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame that begins with {first:02x} {second:02x}"));
    }
    let (header, len) = match second {
        126 => match rest.get(2..4) {
            Some(bytes) => (4, bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte))),
            None => return Ok(None),
        },
        127 => match rest.get(2..10) {
            Some(bytes) => (10, bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte))),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    Ok(Some((first & 0x0f, header, len)))
}

/// The limits of what a log keeps of a group of pictures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) time: u64,
}

impl Bounds {
    fn exceeded(&self, frame: &Frame) -> bool {
        let (bytes, frames, time) = frame.since_key;
        bytes > self.bytes / 2 || frames > self.frames / 2 || time > self.time
    }

    /// Whether a group is larger at this frame than what is kept, so that nobody can begin in it.
    fn outgrown(&self, frame: &Frame) -> bool {
        let (bytes, frames, time) = frame.since_key;
        bytes > self.bytes || frames > self.frames || time > self.time
    }
}

/// A gap in what a viewer saw, or a step back: from the frame before it to the frame after it.
pub(super) type Gap = (usize, usize);

/// Compares what a viewer saw with the frames that were pushed; returns its gaps, and whether it saw the last
/// frame of a session (and which).
pub(super) fn compare(
    reader: &Reader,
    frames: &[Frame],
    tracks: Tracks,
    bounds: Bounds,
    level: usize,
) -> Result<(Vec<Gap>, Option<usize>), String> {
    let mut gaps = Vec::new();
    let mut last: Option<usize> = None;
    let mut need_key = false;
    // After a start without a keyframe a gateway drops what cannot be decoded; so does a viewer served by a
    // relay.
    let dropped = |f: &Frame| level > 0 && f.kind == TagKind::Video && !f.key && bounds.exceeded(f);
    for seen in &reader.seen {
        let found = frames.binary_search_by_key(&(seen.session, seen.place), |f| (f.session, f.place));
        let Ok(at) = found else { return Err(format!("{seen:?} was never taken")) };
        let frame = &frames[at];
        let with_pictures = tracks != Tracks::Audio && reader.selection != Selection::Audio;
        if last.is_none_or(|last| at != last + 1) {
            let mut undecodable = false;
            if let Some(last) = last {
                if level > 0 && at > last && frames[last + 1..at].iter().all(dropped) {
                    undecodable = true;
                } else {
                    gaps.push((last, at));
                }
            }
            // Where it landed: a picture, or audio that leads up to one.
            let may_land_within = |frame: &Frame| level > 0 && bounds.exceeded(frame);
            let lawful = !with_pictures || frame.key || undecodable || may_land_within(frame);
            if !lawful && !frame.leading {
                return Err(format!("it landed at {frame:?}, after {:?}", last.map(|last| frames[last])));
            }
            need_key = with_pictures && !undecodable && !frame.key && !bounds.exceeded(frame);
        }
        if frame.kind == TagKind::Video {
            if need_key && !frame.key && !bounds.exceeded(frame) {
                return Err(format!("the first picture is {frame:?}"));
            }
            need_key = false;
        }
        last = Some(at);
    }
    let is_end = |at: &usize| {
        let session = frames[*at].session;
        let rest = frames[at + 1..].iter().take_while(|frame| frame.session == session);
        // A viewer that has lost its place in a group that is no longer kept whole waits for the next one.
        rest.clone().all(|frame| reader.may_repeat && dropped(frame))
            || rest.last().is_some_and(|last| bounds.outgrown(last))
    };
    Ok((gaps, last.filter(is_end).map(|at| frames[at].session)))
}
