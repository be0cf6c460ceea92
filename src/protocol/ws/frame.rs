//! Writes frames (RFC 6455, 5.2): whole messages, masked by a client and never by a server.

/// Most bytes of a control frame's payload (RFC 6455, 5.5).
pub const CONTROL_MAX: usize = 125;
/// The longest header that [`frame_header`] writes.
pub const HEADER_MAX: usize = 10;

/// The kind of a frame; the discriminant is its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation = 0,
    /// UTF-8.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The last frame of each side.
    Close = 8,
    /// To be answered with a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    /// The kind for the low four bits of a frame's first byte.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Whether frames of this kind may come between those of a message.
    pub const fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// Writes the header of a final, unmasked frame of `len` payload bytes and returns the header's own length: 2,
/// 4 or 10. The payload follows from where it is.
pub fn frame_header(opcode: Opcode, len: usize, out: &mut [u8; HEADER_MAX]) -> usize {
    out[0] = 0x80 | opcode as u8;
    if let Ok(short @ 0..=125) = u8::try_from(len) {
        out[1] = short;
        return 2;
    }
    if let Ok(medium) = u16::try_from(len) {
        out[1] = 126;
        out[2..4].copy_from_slice(&medium.to_be_bytes());
        return 4;
    }
    out[1] = 127;
    out[2..10].copy_from_slice(&(len as u64).to_be_bytes());
    10
}

/// Applies a mask (RFC 6455, 5.3), or removes it; `phase`: the number of payload bytes before, modulo 4.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut mask = mask;
    mask.rotate_left(phase % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_ne_bytes((&*word).try_into().expect("eight bytes")) ^ wide;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a whole frame of a client: final and masked.
pub fn client_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let mut header = [0; HEADER_MAX];
    let len = frame_header(opcode, payload.len(), &mut header);
    header[1] |= 0x80;
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask, 0);
}

/// A close frame. A reason longer than 123 bytes is cut at a character boundary.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default();
    control_frame(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A pong with the payload of the ping it answers; a payload longer than a ping allows is cut.
pub fn pong_frame(payload: &[u8]) -> Vec<u8> {
    control_frame(Opcode::Pong, payload)
}

/// A ping, to learn whether a silent viewer is still there.
pub fn ping_frame(payload: &[u8]) -> Vec<u8> {
    control_frame(Opcode::Ping, payload)
}

fn control_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..CONTROL_MAX).unwrap_or(payload);
    let mut header = [0; HEADER_MAX];
    let len = frame_header(opcode, payload.len(), &mut header);
    [&header[..len], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_the_shortest_length() {
        let cases: [(usize, &[u8]); 6] = [
            (0, &[0x82, 0]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (256, &[0x82, 126, 1, 0]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ];
        for (len, want) in cases {
            let mut out = [0; HEADER_MAX];
            let n = frame_header(Opcode::Binary, len, &mut out);
            assert_eq!(&out[..n], want);
        }
    }

    #[test]
    fn masks_are_applied_and_removed_in_any_pieces() {
        let plain: Vec<u8> = (0..100).collect();
        let mut wire = Vec::new();
        client_frame(Opcode::Binary, &plain, [9, 8, 7, 250], &mut wire);
        assert_eq!(wire[..6], [0x82, 0x80 | 100, 9, 8, 7, 250]);
        for at in 0..plain.len() {
            let mut payload = wire[6..].to_vec();
            let (front, back) = payload.split_at_mut(at);
            apply_mask(front, [9, 8, 7, 250], 0);
            apply_mask(back, [9, 8, 7, 250], at);
            assert_eq!(payload, plain, "{at}");
        }
    }

    #[test]
    fn control_frames_stay_short() {
        assert_eq!(pong_frame(b"Hello"), b"\x8a\x05Hello"); // RFC 6455, 5.7
        assert_eq!(close_frame(1000, "bye"), b"\x88\x05\x03\xe8bye");
        assert_eq!(ping_frame(&[0; 300]).len(), 127);
        let cut = close_frame(1008, &"é".repeat(100));
        assert_eq!(cut.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&cut[4..]).is_ok());
    }
}
