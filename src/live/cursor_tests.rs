use super::super::log::LogWriter;
use super::super::log::tests::{RETENTION, tag, writer};
use super::*;

const LAG: LagLimits = LagLimits { bytes: 50_000, time: 3_000 };

/// A log with a keyframe each second, 25 tags of 1,015 bytes a second.
fn grow(writer: &mut LogWriter, frames: std::ops::Range<i64>, headers: &Arc<Headers>) {
    for n in frames {
        if n % 25 == 0 {
            let at = writer.head();
            writer.mark_start(at, n * 40, true, Arc::clone(headers), Tracks::default());
        }
        writer.append(&tag(0, 1000), n * 40).unwrap();
    }
    writer.publish();
}

fn step(cursor: &mut Cursor, writer: &LogWriter) -> Step {
    let log = writer.log();
    let (head, time, index) = (log.head(), log.head_time(), log.index());
    let held = index.span_at(cursor.at()).cloned();
    cursor.step(&index, head, time, held.as_ref(), &LAG)
}

#[test]
fn a_new_viewer_starts_at_the_newest_keyframe() {
    let mut writer = writer(RETENTION);
    let headers = Arc::new(Headers::new(3, []));
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    assert!(matches!(step(&mut cursor, &writer), Step::Idle));
    grow(&mut writer, 0..60, &headers);
    let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no start") };
    assert_eq!((begin.time, begin.skipped), (2000, 0));
    assert_eq!(begin.headers.unwrap().version, 3);
    let Step::Run { from, to } = step(&mut cursor, &writer) else { panic!("no run") };
    assert_eq!((from, to), (50 * 1015, 60 * 1015));
    cursor.sent(to - from);
    assert!(matches!(step(&mut cursor, &writer), Step::Idle));
}

#[test]
fn without_the_gop_a_viewer_waits_for_the_next_keyframe() {
    let mut writer = writer(RETENTION);
    let headers = Arc::default();
    grow(&mut writer, 0..30, &headers);
    let mut cursor = Cursor::new(StartAt::NotBefore(writer.head()), Encoding::Flv);
    assert!(matches!(step(&mut cursor, &writer), Step::Idle));
    grow(&mut writer, 30..49, &headers);
    assert!(matches!(step(&mut cursor, &writer), Step::Idle));
    grow(&mut writer, 49..51, &headers);
    assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
    assert_eq!(cursor.at(), 50 * 1015);
}

#[test]
fn without_the_gop_a_viewer_ignores_a_start_without_a_keyframe() {
    let mut writer = writer(RETENTION);
    grow(&mut writer, 0..10, &Arc::default());
    let mut cursor = Cursor::new(StartAt::NotBefore(writer.head()), Encoding::Flv);
    let at = writer.head();
    writer.mark_start(at, 400, false, Arc::default(), Tracks::default());
    grow(&mut writer, 10..20, &Arc::default());
    assert!(matches!(step(&mut cursor, &writer), Step::Idle));
    grow(&mut writer, 20..30, &Arc::default());
    assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
    assert_eq!(cursor.at(), 25 * 1015);
}

#[test]
fn a_viewer_that_lags_finishes_its_tag_and_skips_to_the_newest_keyframe() {
    let mut writer = writer(RETENTION);
    let headers = Arc::default();
    grow(&mut writer, 0..10, &headers);
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    step(&mut cursor, &writer);
    let Step::Run { .. } = step(&mut cursor, &writer) else { panic!("no run") };
    cursor.sent(2 * 1015 + 7); // cut inside the third tag
    grow(&mut writer, 10..90, &headers);
    let Step::Run { from, to } = step(&mut cursor, &writer) else { panic!("no finish") };
    assert_eq!((from, to), (2 * 1015 + 7, 3 * 1015));
    cursor.sent(to - from);
    let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no skip") };
    assert_eq!(begin.skipped, (75 - 3) * 1015);
    assert!(begin.headers.is_none(), "the same headers are not sent twice");
    assert_eq!(cursor.at(), 75 * 1015);
}

#[test]
fn an_announced_message_is_finished_before_a_skip() {
    let mut writer = writer(RETENTION);
    let headers = Arc::default();
    grow(&mut writer, 0..10, &headers);
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    step(&mut cursor, &writer);
    step(&mut cursor, &writer);
    cursor.commit(5000);
    cursor.sent(10);
    grow(&mut writer, 10..90, &headers);
    let Step::Run { to, .. } = step(&mut cursor, &writer) else { panic!("no finish") };
    assert_eq!(to, 5 * 1015);
}

/// A group of many seconds at once is no lag, even if the next keyframe comes before it has been taken.
#[test]
fn a_burst_at_the_start_is_not_lag() {
    let mut writer = writer(super::super::log::Retention { history: 20_000, ..RETENTION });
    let headers = Arc::default();
    let at = writer.head();
    writer.mark_start(at, 0, true, Arc::clone(&headers), Tracks::default());
    for n in 0..200 {
        writer.append(&tag(0, 1000), n * 40).unwrap();
    }
    writer.publish();
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
    for n in 200..400 {
        grow(&mut writer, n..n + 1, &headers);
        // Twice as fast as the stream comes.
        match step(&mut cursor, &writer) {
            Step::Run { from, to } => cursor.sent((to - from).min(2 * 1015)),
            other => panic!("{other:?} at picture {n}"),
        }
    }
    assert_eq!(cursor.at(), writer.head());
    // What it has caught up counts as lag again.
    grow(&mut writer, 400..500, &headers);
    let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no skip") };
    assert!(begin.skipped > 0);
}

#[test]
fn a_viewer_that_has_lost_its_place_waits_for_a_keyframe() {
    let mut writer = writer(super::super::log::Retention { bytes: 60_000, ..RETENTION });
    let headers = Arc::default();
    writer.set_keyed(true);
    grow(&mut writer, 0..10, &headers);
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    step(&mut cursor, &writer);
    step(&mut cursor, &writer);
    cursor.sent(1015);
    for n in 10..200 {
        if writer.wants_start(n * 40) {
            let at = writer.head();
            writer.mark_start(at, n * 40, false, Arc::clone(&headers), Tracks::default());
        }
        writer.append(&tag(0, 1000), n * 40).unwrap();
    }
    writer.publish();
    let lost = |cursor: &Cursor| cursor.at() < writer.log().index().tail();
    assert!(lost(&cursor) && matches!(step(&mut cursor, &writer), Step::Idle));
    let mut fresh = Cursor::new(StartAt::Newest, Encoding::Flv);
    assert!(matches!(step(&mut fresh, &writer), Step::Idle));
    grow(&mut writer, 200..201, &headers);
    assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
    assert!(matches!(step(&mut fresh, &writer), Step::Begin(_)));
    assert_eq!(cursor.at(), 200 * 1015);
}

#[test]
fn a_skip_waits_for_a_head_that_is_older_than_the_index() {
    let mut writer = writer(super::super::log::Retention { bytes: 60_000, ..RETENTION });
    let headers = Arc::default();
    grow(&mut writer, 0..10, &headers);
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    step(&mut cursor, &writer);
    step(&mut cursor, &writer);
    cursor.sent(1015);
    let (head, time) = (writer.log().head(), writer.log().head_time());
    grow(&mut writer, 10..200, &headers);
    let index = writer.log().index();
    assert!(index.tail() > head);
    assert!(matches!(cursor.step(&index, head, time, None, &LAG), Step::Idle));
    assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
}

#[test]
fn changed_headers_are_sent_at_a_skip() {
    let mut writer = writer(RETENTION);
    grow(&mut writer, 0..10, &Arc::default());
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    step(&mut cursor, &writer);
    grow(&mut writer, 10..100, &Arc::new(Headers::new(1, [])));
    let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no skip") };
    assert_eq!(begin.headers.unwrap().version, 1);
}

#[test]
fn a_viewer_that_takes_almost_nothing_is_disconnected() {
    let mut writer = writer(RETENTION);
    let headers = Arc::default();
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    let mut skips = 0;
    for second in 0..60 {
        grow(&mut writer, second * 25..(second + 1) * 25, &headers);
        match step(&mut cursor, &writer) {
            Step::Begin(begin) => skips += u32::from(begin.skipped > 0),
            Step::Run { from, to } => cursor.sent((to - from).min(100)),
            Step::Cut => {
                assert!(skips >= 2);
                return;
            }
            Step::Idle => {}
        }
    }
    panic!("never disconnected");
}

#[test]
fn a_viewer_at_half_speed_is_kept() {
    let mut writer = writer(RETENTION);
    let headers = Arc::default();
    let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
    let (mut skips, mut taken) = (0, 0);
    for second in 0..300 {
        grow(&mut writer, second * 25..(second + 1) * 25, &headers);
        let mut budget = 12_000;
        while budget > 0 {
            match step(&mut cursor, &writer) {
                Step::Begin(begin) => skips += u32::from(begin.skipped > 0),
                Step::Run { from, to } => {
                    let take = (to - from).min(budget);
                    cursor.sent(take);
                    budget -= take;
                    taken += take;
                }
                Step::Cut => panic!("disconnected although it takes half"),
                Step::Idle => break,
            }
        }
    }
    assert!(skips > 10);
    assert!(taken > 300 * 11_000);
}
