//! RTMP play. The contents of the messages are checked as FLV tags.
//!
//! It deliberately does not acknowledge while bytes are only counted: servers do not wait for that.

use super::{Appetite, Fault, Input, Progress};
use crate::media::flv::FileHeader;
use crate::protocol::rtmp::client::{PlayEvent, PlaySession};
use crate::tools::stress::args::Target;
use crate::tools::stress::chain::Chain;
use crate::tools::stress::framing::FramingError;

/// Follows the tags up to the first keyframe, those of a sampled viewer to the end.
#[derive(Debug)]
pub(in crate::tools::stress) struct RtmpSession {
    look: Option<Box<Look>>,
    sampled: bool,
}

/// Needed only while the bytes are examined.
#[derive(Debug)]
struct Look {
    session: PlaySession,
    playing: bool,
    chain: Chain,
    /// One tag as FLV.
    tag: Vec<u8>,
}

impl RtmpSession {
    pub(super) fn new(target: &Target, sampled: bool) -> Self {
        let path = target.path.trim_start_matches('/');
        let (app, name) = path.rsplit_once('/').unwrap_or((path, ""));
        let session = PlaySession::new(app, &format!("rtmp://{}/{app}", target.host), name);
        let mut chain = Chain::new();
        let header = FileHeader { audio: true, video: true }.encode();
        chain.feed(&header).expect("a good header");
        Self { look: Some(Box::new(Look { session, playing: false, chain, tag: Vec::new() })), sampled }
    }

    pub(super) fn appetite(&self) -> Appetite {
        if self.look.is_some() { Appetite::Bytes } else { Appetite::Count(usize::MAX) }
    }

    pub(super) fn speak(&mut self) -> Progress {
        let output = self.look.as_mut().and_then(|look| look.session.take_output());
        Progress { output: output.unwrap_or_default().into(), ..Progress::default() }
    }

    pub(super) fn take(&mut self, input: Input<'_>) -> Result<Progress, Fault> {
        let (Some(look), Input::Bytes(bytes)) = (self.look.as_mut(), input) else {
            return Ok(Progress { bytes: input.len() as u64, ..Progress::default() });
        };
        look.session.input(bytes).map_err(Fault::Rtmp)?;
        while let Some(event) = look.session.poll_event() {
            match event {
                PlayEvent::Begin => {}
                PlayEvent::Tag(tag) => {
                    look.playing = true;
                    look.tag.clear();
                    tag.write_to(&mut look.tag);
                    look.chain.feed(&look.tag).map_err(Fault::Chain)?;
                }
                PlayEvent::End => return Err(Fault::Framing(FramingError::Ended)),
            }
        }
        let has_picture = look.chain.keyframes() > 0;
        let bytes = if look.playing { bytes.len() as u64 } else { 0 };
        let progress = Progress { bytes, has_picture, ..self.speak() };
        if has_picture && !self.sampled {
            self.look = None;
        }
        Ok(progress)
    }

    pub(super) fn chain(&mut self) -> Option<&mut Chain> {
        self.look.as_mut().map(|look| &mut look.chain)
    }
}
