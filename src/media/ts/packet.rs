//! Transport stream packets and PES packets (ISO/IEC 13818-1, 2.4.3).

use super::pid::{PID_AUDIO, PID_MAP, PID_VIDEO};

/// Bytes of a transport stream packet.
pub const PACKET: usize = 188;
const PAYLOAD: usize = PACKET - 4;

/// The times of a PES packet, in ticks of 90 kHz; on the wire they wrap at 2^33.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) pts: i64,
    /// `None`: the same as `pts`.
    pub(super) dts: Option<i64>,
    /// The program clock at this packet, if it is sent.
    pub(super) clock: Option<i64>,
    /// Decoding may begin here.
    pub(super) random_access: bool,
}

/// Writes packets and counts them.
#[derive(Debug, Default)]
pub(super) struct Packets {
    counters: [u8; 4],
    /// A PES packet under construction.
    pes: Vec<u8>,
}

impl Packets {
    /// Writes a table's section, which fits into one packet.
    pub(super) fn section(&mut self, pid: u16, section: &[u8], out: &mut Vec<u8>) {
        assert!(section.len() < PAYLOAD, "tables of a handful of streams");
        let end = out.len() + PACKET;
        out.extend_from_slice(&self.header(pid, true, false));
        out.push(0); // pointer_field
        out.extend_from_slice(section);
        out.resize(end, 0xff);
    }

    /// Writes one access unit as a PES packet.
    pub(super) fn pes(&mut self, pid: u16, stream_id: u8, stamp: Stamp, data: &[u8], out: &mut Vec<u8>) {
        let mut pes = std::mem::take(&mut self.pes);
        pes.clear();
        put_pes_header(stream_id, stamp, data.len(), &mut pes);
        pes.extend_from_slice(data);
        out.reserve(pes.len().div_ceil(PAYLOAD - 1) * PACKET + PACKET);
        let mut rest = &pes[..];
        let mut adaptation = Vec::with_capacity(7);
        put_adaptation(stamp.clock, stamp.random_access, &mut adaptation);
        let mut start = true;
        while !rest.is_empty() {
            let taken = self.packet(pid, start, &adaptation, rest, out);
            rest = &rest[taken..];
            adaptation.clear();
            start = false;
        }
        self.pes = pes;
    }

    /// Writes a packet with the program clock and nothing else.
    pub(super) fn clock(&mut self, pid: u16, clock: i64, out: &mut Vec<u8>) {
        let end = out.len() + PACKET;
        let mut header = self.header(pid, false, true);
        // It has no payload, and is therefore not counted (13818-1, 2.4.3.3).
        let counter = &mut self.counters[slot(pid)];
        *counter = (*counter + 15) & 15;
        header[3] = 0x20 | (*counter + 15) & 15;
        out.extend_from_slice(&header);
        out.push(u8::try_from(PAYLOAD - 1).expect("less than a packet"));
        put_adaptation(Some(clock), false, out);
        out.resize(end, 0xff);
    }

    /// Writes one packet with as much of `payload` as fits; the rest is stuffed. `adaptation` is the field's
    /// content without its length. Returns the number of bytes taken.
    fn packet(
        &mut self,
        pid: u16,
        start: bool,
        adaptation: &[u8],
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> usize {
        let field = if adaptation.is_empty() { 0 } else { adaptation.len() + 1 };
        let taken = payload.len().min(PAYLOAD - field);
        // The length byte is part of the field: a field of one byte has the length zero.
        let space = PAYLOAD - taken;
        out.extend_from_slice(&self.header(pid, start, space > 0));
        if let Some(length) = space.checked_sub(1) {
            let end = out.len() + space;
            out.push(u8::try_from(length).expect("less than a packet"));
            match adaptation {
                [] if length > 0 => out.push(0), // no flag set
                field => out.extend_from_slice(field),
            }
            out.resize(end, 0xff);
        }
        out.extend_from_slice(&payload[..taken]);
        taken
    }

    /// The four bytes before every packet's content (13818-1, 2.4.3.2); each packet here has a payload.
    fn header(&mut self, pid: u16, start: bool, adaptation: bool) -> [u8; 4] {
        let slot = slot(pid);
        let counter = self.counters[slot];
        self.counters[slot] = (counter + 1) & 15;
        let [high, low] = pid.to_be_bytes();
        [0x47, u8::from(start) << 6 | high, low, u8::from(adaptation) << 5 | 0x10 | counter]
    }
}

/// The index of the continuity counter of `pid`.
fn slot(pid: u16) -> usize {
    match pid {
        PID_VIDEO => 2,
        PID_AUDIO => 3,
        PID_MAP => 1,
        _ => 0,
    }
}

/// The adaptation field's flags and clock (13818-1, 2.4.3.4), without its length; empty if there is nothing to
/// signal.
fn put_adaptation(clock: Option<i64>, random_access: bool, out: &mut Vec<u8>) {
    let flags = u8::from(random_access) << 6 | u8::from(clock.is_some()) << 4;
    if flags == 0 {
        return;
    }
    out.push(flags);
    if let Some(clock) = clock {
        // 33 bits of base, 6 reserved, 9 of extension.
        let base = clock.rem_euclid(1 << 33).cast_unsigned();
        let bytes = (base << 15 | 0x7e00).to_be_bytes();
        out.extend_from_slice(&bytes[2..]);
    }
}

/// The PES header (13818-1, 2.4.3.6).
fn put_pes_header(stream_id: u8, stamp: Stamp, len: usize, out: &mut Vec<u8>) {
    let dts = stamp.dts.filter(|dts| *dts != stamp.pts);
    let times = if dts.is_some() { 10u8 } else { 5 };
    // Zero, "unbounded", is allowed for video, whose frames may be larger.
    let length = u16::try_from(len + 3 + usize::from(times)).unwrap_or(0);
    let [l1, l0] = length.to_be_bytes();
    let has = if dts.is_some() { 0xc0 } else { 0x80 };
    out.extend_from_slice(&[0, 0, 1, stream_id, l1, l0, 0x84, has, times]);
    put_time(if dts.is_some() { 3 } else { 2 }, stamp.pts, out);
    if let Some(dts) = dts {
        put_time(1, dts, out);
    }
}

/// 33 bits of time in five bytes with marker bits between them.
fn put_time(mark: u8, ticks: i64, out: &mut Vec<u8>) {
    let ticks = ticks.rem_euclid(1 << 33).cast_unsigned();
    // Fields of 3, 15 and 15 bits.
    let high = (ticks >> 30 << 1 | 1).to_be_bytes();
    let middle = ((ticks >> 15 & 0x7fff) << 1 | 1).to_be_bytes();
    let low = ((ticks & 0x7fff) << 1 | 1).to_be_bytes();
    out.extend_from_slice(&[mark << 4 | high[7], middle[6], middle[7], low[6], low[7]]);
}
