//! What both ends of a connection have in common after the handshake: chunks, protocol control, output.

use bytes::Bytes;

use super::RtmpError;
use super::chunk::{ChunkLimits, ChunkReader, ChunkWriter};
use super::message::{Control, Message, UserControl};

/// Bytes between two acknowledgements, in both directions, unless the peer asks for fewer.
pub(super) const WINDOW: u32 = 2_500_000;

/// One end of a chunk stream.
#[derive(Debug)]
pub(super) struct Link {
    reader: ChunkReader,
    writer: ChunkWriter,
    /// Bytes for the peer.
    pub(super) out: Vec<u8>,
    /// Bytes from the peer; wraps as the acknowledgement does.
    received: u32,
    acknowledged: u32,
    /// Bytes that the peer may send before it expects an acknowledgement.
    window: u32,
}

impl Link {
    pub(super) fn new(limits: ChunkLimits) -> Self {
        Self {
            reader: ChunkReader::new(limits),
            writer: ChunkWriter::default(),
            out: Vec::new(),
            received: 0,
            acknowledged: 0,
            window: WINDOW,
        }
    }

    /// Bytes of messages that are not complete, and of those that wait to be sent.
    pub(super) fn held(&self) -> usize {
        self.reader.unfinished() + self.out.len()
    }

    /// Whether no message is unfinished.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.reader.is_at_boundary()
    }

    pub(super) fn set_message_max(&mut self, bytes: u32) {
        self.reader.set_message_max(bytes);
    }

    /// The next message from the start of `input` that is not control; control is answered here.
    pub(super) fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Message>, RtmpError> {
        while let Some(message) = self.reader.next_message(input)? {
            match Control::parse(message.kind, &message.payload)? {
                Some(control) => self.obey(control),
                None => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::WindowAckSize { size } => self.window = size.min(WINDOW),
            Control::SetPeerBandwidth { .. } => self.send(&Control::WindowAckSize { size: WINDOW }.message()),
            Control::User(UserControl::PingRequest { time }) => {
                self.send(&Control::User(UserControl::PingResponse { time }).message());
            }
            // The reader has handled the first two; the others require nothing.
            Control::SetChunkSize { .. }
            | Control::Abort { .. }
            | Control::Acknowledgement { .. }
            | Control::User(_) => {}
        }
    }

    /// Counts bytes from the peer.
    pub(super) fn count(&mut self, bytes: usize) {
        // Modulo 2^32, like the field.
        #[allow(clippy::cast_possible_truncation)]
        let bytes = bytes as u32;
        self.received = self.received.wrapping_add(bytes);
    }

    /// Acknowledges the bytes counted once they exceed half the window: some encoders stop when the window is
    /// full. At most one acknowledgement per call, however small the window is.
    pub(super) fn acknowledge(&mut self) {
        if self.received.wrapping_sub(self.acknowledged) > self.window / 2 {
            self.acknowledged = self.received;
            self.send(&Control::Acknowledgement { sequence: self.received }.message());
        }
    }

    pub(super) fn send(&mut self, message: &Message) {
        self.writer.write(message, &mut self.out);
    }

    /// Announces a chunk size and uses it.
    pub(super) fn send_chunk_size(&mut self, size: u32) {
        self.send(&Control::SetChunkSize { size }.message());
        self.writer.set_chunk_size(size);
    }

    pub(super) fn take_output(&mut self) -> Option<Bytes> {
        if self.out.is_empty() { None } else { Some(Bytes::from(std::mem::take(&mut self.out))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(link: &mut Link) -> Vec<Message> {
        let mut reader = ChunkReader::new(ChunkLimits::default());
        let bytes = link.take_output().unwrap_or_default();
        let mut input = &bytes[..];
        std::iter::from_fn(|| reader.next_message(&mut input).expect("our own bytes")).collect()
    }

    fn receive(link: &mut Link, control: Control) {
        let mut bytes = Vec::new();
        ChunkWriter::default().write(&control.message(), &mut bytes);
        assert_eq!(link.receive(&mut &bytes[..]), Ok(None));
    }

    #[test]
    fn acknowledgements_come_without_a_window_and_wrap() {
        let mut link = Link::new(ChunkLimits::default());
        link.count(1_000_000);
        link.acknowledge();
        assert_eq!(sent(&mut link), []);
        link.count(1_000_000);
        link.acknowledge();
        assert_eq!(sent(&mut link), [Control::Acknowledgement { sequence: 2_000_000 }.message()]);
        link.count(u32::MAX as usize);
        link.acknowledge();
        assert_eq!(sent(&mut link), [Control::Acknowledgement { sequence: 1_999_999 }.message()]);
    }

    #[test]
    fn a_smaller_window_is_respected() {
        for size in [0, 1, 1000] {
            let mut link = Link::new(ChunkLimits::default());
            receive(&mut link, Control::WindowAckSize { size });
            link.count(501);
            link.acknowledge();
            link.acknowledge();
            assert_eq!(sent(&mut link), [Control::Acknowledgement { sequence: 501 }.message()]);
        }
    }

    #[test]
    fn pings_and_bandwidth_are_answered() {
        let mut link = Link::new(ChunkLimits::default());
        receive(&mut link, Control::User(UserControl::PingRequest { time: 77 }));
        receive(&mut link, Control::SetPeerBandwidth { size: 1, limit: 2 });
        let pong = Control::User(UserControl::PingResponse { time: 77 }).message();
        assert_eq!(sent(&mut link), [pong, Control::WindowAckSize { size: WINDOW }.message()]);
    }
}
