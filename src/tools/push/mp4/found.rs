//! A sample that was found in a file.

use shiguredo_mp4::boxes::SampleEntry;
/// A sample, before its bytes are read.
pub(super) struct Found {
    pub(super) track: u32,
    pub(super) entry: Option<SampleEntry>,
    pub(super) key: bool,
    pub(super) time: i64,
    pub(super) composition: i64,
    pub(super) at: u64,
    pub(super) len: usize,
}
