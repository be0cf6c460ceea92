//! A viewer's protocol, sans-IO: it takes the bytes that came, and returns what they were and what to send.

mod answer;
mod exchange;
mod file;
mod hls;
mod live;
mod rtmp;

pub(super) use self::exchange::{Appetite, Fault, Input, Progress};
use self::file::FileSession;
use self::hls::HlsSession;
use self::live::LiveSession;
use self::rtmp::RtmpSession;
use super::args::{Options, Protocol, Target};
use super::chain::Chain;

/// A viewer's side of its connection.
#[derive(Debug)]
pub(super) enum Session {
    Live(LiveSession),
    Rtmp(RtmpSession),
    Hls(Box<HlsSession>),
    File(FileSession),
}

impl Session {
    /// The session of a viewer of `target`; every byte is examined if it is `sampled`.
    pub(super) fn new(target: &Target, sampled: bool, options: &Options) -> Self {
        match target.protocol {
            Protocol::HttpFlv | Protocol::WsFlv => Self::Live(LiveSession::new(sampled)),
            Protocol::Rtmp => Self::Rtmp(RtmpSession::new(target, sampled)),
            Protocol::Hls => Self::Hls(Box::new(HlsSession::new(target, sampled))),
            Protocol::File => Self::File(FileSession::new(sampled, options.ask_every)),
        }
    }

    pub(super) fn appetite(&self) -> Appetite {
        match self {
            Self::Live(live) => live.appetite(),
            Self::Rtmp(rtmp) => rtmp.appetite(),
            Self::Hls(hls) => hls.appetite(),
            Self::File(file) => file.appetite(),
        }
    }

    /// The connection is established, or the requested time has come: returns what to send.
    pub(super) fn speak(&mut self, target: &Target, now: u64) -> Progress {
        match self {
            Self::Live(_) => {
                Progress { output: target.request(&target.path).into_bytes(), ..Progress::default() }
            }
            Self::Rtmp(rtmp) => rtmp.speak(),
            Self::Hls(hls) => hls.speak(target, now),
            Self::File(file) => file.speak(target, now),
        }
    }

    /// Takes what came.
    pub(super) fn take(&mut self, target: &Target, input: Input<'_>, now: u64) -> Result<Progress, Fault> {
        match self {
            Self::Live(live) => live.take(input),
            Self::Rtmp(rtmp) => rtmp.take(input),
            Self::Hls(hls) => hls.take(target, input, now),
            Self::File(file) => file.take(target, input, now),
        }
    }

    /// Whether nothing is expected from the server, so that it may close the connection.
    pub(super) fn is_resting(&self) -> bool {
        match self {
            Self::Live(_) | Self::Rtmp(_) => false,
            Self::Hls(hls) => hls.is_resting(),
            Self::File(file) => file.is_resting(),
        }
    }

    /// Whether a player would have nothing to play now.
    pub(super) fn is_dry(&self, now: u64) -> bool {
        matches!(self, Self::Hls(hls) if hls.is_dry(now))
    }

    /// The checked tags of a live session.
    pub(super) fn chain(&mut self) -> Option<&mut Chain> {
        match self {
            Self::Live(live) => live.chain(),
            Self::Rtmp(rtmp) => rtmp.chain(),
            Self::Hls(_) | Self::File(_) => None,
        }
    }
}
