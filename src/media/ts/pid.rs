//! Packet identifiers of the elementary streams and of the program's map.

pub(super) const PID_VIDEO: u16 = 0x100;
pub(super) const PID_AUDIO: u16 = 0x101;
pub(super) const PID_MAP: u16 = 0x1000;
