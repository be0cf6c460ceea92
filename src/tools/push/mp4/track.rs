//! A track, its times, and checks of what its tables claim.

use shiguredo_mp4::boxes::{MoovBox, StblBox};

use super::codec::Codec;
use crate::media::tag::TagKind;

/// A track that is pushed.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) kind: TagKind,
    pub(super) timescale: i64,
    /// Added to its times by its edit list, in its own units.
    pub(super) shift: i64,
    pub(super) length: u64,
    pub(super) codec: Option<Codec>,
}

impl Track {
    /// A time in the track's own units as milliseconds. A file may claim any time; sums of the results do not
    /// overflow.
    pub(super) fn millis(&self, units: i64) -> i64 {
        let millis = (i128::from(units) * 1000).div_euclid(i128::from(self.timescale));
        i64::try_from(millis).unwrap_or(i64::MAX * units.signum()).clamp(i64::MIN / 4, i64::MAX / 4)
    }
}

/// Whether the demuxer can add up a table's counts without overflow.
pub(super) fn are_countable(table: &StblBox) -> bool {
    let times = table.stts_box.entries.iter();
    let length = times.clone().try_fold(0u64, |sum, entry| {
        sum.checked_add(u64::from(entry.sample_delta) * u64::from(entry.sample_count))
    });
    let samples = times.map(|entry| u64::from(entry.sample_count)).sum::<u64>();
    let compositions = table.ctts_box.iter().flat_map(|ctts| &ctts.entries);
    let composed = compositions.map(|entry| u64::from(entry.sample_count)).sum::<u64>();
    length.is_some() && samples.max(composed) < u64::from(u32::MAX)
}

/// What a track's edit list adds to its times.
pub(super) fn edit_shift(moov: &MoovBox, track: u32, timescale: i64) -> i64 {
    let mut traks = moov.trak_boxes.iter();
    let trak = traks.find(|trak| trak.tkhd_box.track_id == track);
    let edits = trak.and_then(|trak| trak.edts_box.as_ref()?.elst_box.as_ref());
    let mut shift = 0;
    for edit in edits.map_or(&[][..], |list| &list.entries) {
        if edit.media_time >= 0 {
            return i64::saturating_sub(shift, edit.media_time);
        }
        let pause = i64::try_from(edit.edit_duration).unwrap_or(0).saturating_mul(timescale);
        shift = shift.saturating_add(pause / i64::from(moov.mvhd_box.timescale.get()));
    }
    shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_claimed_time_becomes_milliseconds() {
        let track = |timescale| Track {
            id: 1,
            kind: TagKind::Video,
            timescale,
            shift: i64::MIN,
            length: 0,
            codec: None,
        };
        assert_eq!(
            [-1, 0, 45_000, 90_001].map(|units| track(90_000).millis(units)),
            [-1, 0, 500, 1000],
            "rounded down"
        );
        let far = track(1).millis(i64::MAX);
        assert_eq!((far, track(1).millis(i64::MIN)), (i64::MAX / 4, i64::MIN / 4));
        assert_eq!(track(i64::from(u32::MAX)).millis(i64::MAX), 2_147_483_648_499);
    }

    #[test]
    fn tables_with_impossible_counts_are_refused() {
        use shiguredo_mp4::boxes::{StcoBox, StscBox, StsdBox, StszBox, SttsBox, SttsEntry};
        let table = |entries: &[(u32, u32)]| {
            let entry = |&(sample_count, sample_delta)| SttsEntry { sample_count, sample_delta };
            StblBox {
                stsd_box: StsdBox { entries: Vec::new() },
                stts_box: SttsBox { entries: entries.iter().map(entry).collect() },
                ctts_box: None,
                cslg_box: None,
                stsc_box: StscBox { entries: Vec::new() },
                stsz_box: StszBox::Variable { entry_sizes: Vec::new() },
                stco_or_co64_box: shiguredo_mp4::Either::A(StcoBox { chunk_offsets: Vec::new() }),
                stss_box: None,
                sdtp_box: None,
                unknown_boxes: Vec::new(),
            }
        };
        assert!(are_countable(&table(&[(1000, 3600), (u32::MAX / 2, 1)])));
        assert!(!are_countable(&table(&[(u32::MAX, 1), (1, 1)])));
        assert!(!are_countable(&table(&[(u32::MAX, u32::MAX); 2])), "their times do not fit either");
    }
}
