//! HTTP-FLV and WS-FLV: one response that does not end.

use super::{Appetite, Fault, Input, Progress};
use crate::tools::stress::chain::Chain;
use crate::tools::stress::framing::{Chunked, Framing, Ws};

const HEAD_MAX: usize = 16 << 10;

/// Follows the tags up to the first keyframe, those of a sampled viewer to the end.
#[derive(Debug)]
pub(in crate::tools::stress) struct LiveSession {
    look: Option<Box<Look>>,
    sampled: bool,
}

/// Needed only while the bytes are examined.
#[derive(Debug)]
struct Look {
    head: Vec<u8>,
    framing: Option<Framing>,
    chain: Chain,
}

impl LiveSession {
    pub(super) fn new(sampled: bool) -> Self {
        let look = Look { head: Vec::new(), framing: None, chain: Chain::new() };
        Self { look: Some(Box::new(look)), sampled }
    }

    pub(super) fn appetite(&self) -> Appetite {
        if self.look.is_some() { Appetite::Bytes } else { Appetite::Count(usize::MAX) }
    }

    pub(super) fn take(&mut self, input: Input<'_>) -> Result<Progress, Fault> {
        let (Some(look), Input::Bytes(bytes)) = (self.look.as_mut(), input) else {
            return Ok(Progress { bytes: input.len() as u64, ..Progress::default() });
        };
        let head;
        let body = if look.framing.is_some() {
            bytes
        } else {
            let Some(rest) = look.take_head(bytes)? else { return Ok(Progress::default()) };
            head = rest;
            &head
        };
        look.follow(body)?;
        let has_picture = look.chain.keyframes() > 0;
        if has_picture && !self.sampled {
            self.look = None;
        }
        Ok(Progress { bytes: body.len() as u64, has_picture, ..Progress::default() })
    }

    pub(super) fn chain(&mut self) -> Option<&mut Chain> {
        self.look.as_mut().map(|look| &mut look.chain)
    }
}

impl Look {
    /// Collects the response's head; returns the bytes after it once it is complete.
    fn take_head(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|part| part == b"\r\n\r\n") else {
            return if self.head.len() > HEAD_MAX { Err(Fault::NoAnswer) } else { Ok(None) };
        };
        let body = self.head.split_off(end + 4);
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(Fault::NoAnswer)?;
        let chunked = head.lines().any(|line| {
            line.split_once(':')
                .is_some_and(|(name, value)| name == "transfer-encoding" && value.trim() == "chunked")
        });
        self.framing = Some(match status {
            200 if chunked => Framing::Chunked(Chunked::default()),
            200 => Framing::Bare,
            101 => Framing::Ws(Ws::default()),
            _ => return Err(Fault::Status(status)),
        });
        Ok(Some(body))
    }

    fn follow(&mut self, body: &[u8]) -> Result<(), Fault> {
        let Some(framing) = self.framing.as_mut() else { return Ok(()) };
        let mut judged = Ok(());
        let chain = &mut self.chain;
        let stripped = framing.strip(body, |data| {
            if judged.is_ok() {
                judged = chain.feed(data);
            }
        });
        judged.map_err(Fault::Chain)?;
        stripped.map_err(Fault::Framing)
    }
}
