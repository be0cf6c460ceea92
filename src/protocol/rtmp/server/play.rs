//! The commands of a viewer.

use super::{Event, Play, Publish, Refusal, ServerSession};
use crate::media::amf0::{self, Value};
use crate::media::encoding::{RTMP_CHUNK, RTMP_STREAM};
use crate::protocol::rtmp::command::{self, STATUS_CSID};
use crate::protocol::rtmp::message::{Control, Message, UserControl, kind};

impl ServerSession {
    /// Accepts the play: the viewer's tags follow this output. No effect if there is no play, because the peer
    /// ended it before the decision; a second call sends the same answer again.
    pub fn accept_play(&mut self) {
        let (Play::Asked(stream_id) | Play::Live(stream_id)) = self.play else { return };
        self.link.send_chunk_size(u32::try_from(RTMP_CHUNK).expect("a chunk size"));
        self.link.send(&Control::User(UserControl::StreamBegin { stream_id }).message());
        // No NetStream.Data.Start: ffmpeg takes it for a data stream that never comes.
        self.status(stream_id, "NetStream.Play.Reset", "Playing and resetting.");
        self.status(stream_id, "NetStream.Play.Start", "Started playing.");
        // Flash players show nothing without the permission to sample it.
        let values = ["|RtmpSampleAccess".into(), Value::Boolean(true), Value::Boolean(true)];
        let payload = amf0::encode(&values).into();
        self.link.send(&Message {
            csid: STATUS_CSID,
            kind: kind::DATA_AMF0,
            timestamp: 0,
            stream_id,
            payload,
        });
        self.play = Play::Live(stream_id);
        self.check_invariants();
    }

    /// Refuses a play, with a text for the player's log. The peer may ask again.
    pub fn refuse_play(&mut self, why: Refusal, description: &str) {
        let (Play::Asked(stream_id) | Play::Live(stream_id)) = self.play else { return };
        self.link.send(&command::on_status(stream_id, "error", why.play_code(), description));
        self.play = Play::Idle;
    }

    /// Ends the play: the stream has ended, or the peer gets no more of it.
    pub fn end_play(&mut self, description: &str) {
        let (Play::Asked(stream_id) | Play::Live(stream_id)) = self.play else { return };
        self.link.send(&Control::User(UserControl::StreamEof { stream_id }).message());
        self.status(stream_id, "NetStream.Play.UnpublishNotify", description);
        self.status(stream_id, "NetStream.Play.Stop", description);
        self.play = Play::Idle;
    }

    fn status(&mut self, stream_id: u32, code: &str, description: &str) {
        self.link.send(&command::on_status(stream_id, "status", code, description));
    }

    pub(super) fn ask_play(&mut self, stream_id: u32, name: &str) {
        let (code, text) = match stream_id {
            _ if self.publish != Publish::Idle || self.play != Play::Idle => {
                (Refusal::Failed.play_code(), "This connection is in use for another stream.")
            }
            RTMP_STREAM => {
                let (target, agent) = (self.target(name), self.agent().to_owned());
                self.play = Play::Asked(stream_id);
                return self.events.push_back(Event::Play { target, agent });
            }
            _ => (Refusal::Failed.play_code(), "Play on the first message stream, please."),
        };
        self.link.send(&command::on_status(stream_id, "error", code, text));
    }

    pub(super) fn pause(&mut self, pause: bool) {
        let Play::Live(stream_id) = self.play else { return };
        let code = if pause { "NetStream.Pause.Notify" } else { "NetStream.Unpause.Notify" };
        self.status(stream_id, code, if pause { "Paused." } else { "Continuing." });
        self.events.push_back(Event::Pause(pause));
    }

    pub(super) fn receive(&mut self, audio: bool, wanted: bool) {
        if self.play != Play::Idle {
            self.events.push_back(Event::Receive { audio, wanted });
        }
    }

    pub(super) fn subscribed(&mut self, name: &str) {
        self.link.send(&command::on_fc("onFCSubscribe", "NetStream.Play.Start", name));
    }
}
