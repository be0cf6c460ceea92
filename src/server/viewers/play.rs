//! What a viewer asks for.

use super::viewer::Framing;
use crate::live::cursor::StartAt;
use crate::live::key::StreamKey;
use crate::live::stream::Selection;
use crate::live::timeline::StreamTime;
use crate::uring::Millis;

/// A request for a stream.
#[derive(Clone, Debug)]
pub(in crate::server) struct Play {
    pub(in crate::server) key: StreamKey,
    pub(in crate::server) options: Options,
    /// It has already seen everything before this time.
    pub(in crate::server) after: Option<StreamTime>,
    /// Its protocol.
    pub(in crate::server) via: Via,
    /// When it asked.
    pub(in crate::server) since: Millis,
    /// How long it waits for the stream.
    pub(in crate::server) patience: Millis,
    /// It asks for the head of the answer only.
    pub(in crate::server) head_only: bool,
}

/// The protocol of a viewer.
#[derive(Clone, Debug)]
pub(in crate::server) enum Via {
    Http,
    /// With the key of its upgrade and the selected subprotocol.
    WebSocket {
        key: String,
        protocol: Option<String>,
    },
    Rtmp,
}

impl Play {
    /// The framing of its bytes.
    pub(in crate::server) fn framing(&self) -> Framing {
        match self.via {
            Via::Http => Framing::Plain,
            Via::WebSocket { .. } => Framing::WebSocket,
            Via::Rtmp => Framing::Rtmp,
        }
    }

    /// Where it starts in a stream that has been there for `uptime`. "No burst" leaves out what was pushed
    /// before the request: nothing, if the stream came later.
    pub(in crate::server) fn start(&self, now: Millis, uptime: Millis) -> StartAt {
        let came_later = uptime < now.saturating_sub(self.since);
        match self.after {
            Some(time) => StartAt::After(time),
            None if self.options.gop || came_later => StartAt::Newest,
            None => StartAt::NotBefore(0),
        }
    }

    /// How long it may still wait for its stream.
    pub(in crate::server) fn time_left(&self, now: Millis) -> Millis {
        (self.since + self.patience).saturating_sub(now)
    }
}

/// The options of a play URL, the same for HTTP, WebSocket and RTMP: `disableAudio`, `disableVideo` and
/// `disableGop`, each on with any value but `0` and `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Options {
    /// Which tracks.
    pub(in crate::server) selection: Selection,
    /// Whether to start at once with the newest group of pictures.
    pub(in crate::server) gop: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { selection: Selection::All, gop: true }
    }
}

/// The options leave nothing to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("both audio and video are disabled: nothing is left to play")]
pub(in crate::server) struct NothingToPlay;

impl Options {
    /// Parses them; `value` returns the value of a parameter.
    ///
    /// # Errors
    /// [`NothingToPlay`] when both tracks are disabled.
    pub(in crate::server) fn parse(
        mut value: impl FnMut(&'static str) -> Option<String>,
    ) -> Result<Self, NothingToPlay> {
        let mut set = |name| value(name).is_some_and(|value| value != "0" && value != "false");
        let selection = match (set("disableAudio"), set("disableVideo")) {
            (false, false) => Selection::All,
            (true, false) => Selection::Video,
            (false, true) => Selection::Audio,
            (true, true) => return Err(NothingToPlay),
        };
        Ok(Self { selection, gop: !set("disableGop") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_burst_a_viewer_starts_after_its_request() {
        let options = Options { gop: false, ..Options::default() };
        let key = StreamKey::parse("live/a").expect("a name");
        let play = Play {
            key,
            options,
            via: Via::Http,
            after: None,
            since: 1_000,
            patience: 3_000,
            head_only: false,
        };
        assert_eq!(play.start(1_000, 5_000), StartAt::NotBefore(0), "the stream was there");
        assert_eq!(play.start(2_000, 10), StartAt::Newest, "it came later");
    }

    #[test]
    fn options_are_on_with_any_value_but_0_and_false() {
        let parse = |text: &'static str| {
            Options::parse(|name| {
                let value = |pair: &'static str| pair.split_once('=').unwrap_or((pair, ""));
                text.split('&').map(value).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            })
        };
        let of = |selection, gop| Ok(Options { selection, gop });
        assert_eq!(parse(""), Ok(Options::default()));
        assert_eq!(parse("disableAudio"), of(Selection::Video, true));
        assert_eq!(parse("disableVideo=1&disableGop=yes"), of(Selection::Audio, false));
        assert_eq!(parse("disableVideo=0&disableAudio=false&disableGop=0"), Ok(Options::default()));
        assert_eq!(parse("disableVideo=1&disableAudio=1"), Err(NothingToPlay));
    }
}
