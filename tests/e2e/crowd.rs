//! Many at once: every byte checked, everybody sees the same.

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::flv::Brief;
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg};

const VIEWERS: usize = 300;
const PLAY: &str = "/live/crowd.flv";
/// Longer than the test takes, so that no picture comes twice.
const CLIP_SECONDS: u32 = 120;

#[test]
fn three_hundred_viewers_see_the_same_pictures() {
    need_ffmpeg!();
    let scratch = Scratch::new("crowd");
    let home = scratch.path("");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, CLIP_SECONDS, "160x90");
    let mut origin = Server::origin(&home, "5s");
    let mut gateway = Server::gateway(&home, "5s", origin.addr("flv"));
    let _publisher = publish(&clip, &origin.rtmp("live/crowd"), false);
    let reference = Watch::start(origin.addr("flv"), PLAY, Flavor::Http);
    reference.wait_pictures_after(0);

    let places = [origin.addr("flv"), gateway.addr("listen")];
    let crowd: Vec<Watch> = (0..VIEWERS)
        .map(|number| {
            let flavor = if number % 2 == 0 { Flavor::Http } else { Flavor::Ws };
            Watch::start(places[number / 2 % 2], PLAY, flavor)
        })
        .collect();
    crowd.iter().for_each(|watch| watch.wait_pictures_after(0));
    let marks: Vec<usize> = crowd.iter().map(Watch::count).collect();
    for (watch, mark) in crowd.iter().zip(marks) {
        watch.wait_pictures_after(mark);
    }
    let seen: Vec<Vec<u64>> = crowd
        .iter()
        .map(|watch| {
            watch.assert_well();
            pictures(&watch.tags())
        })
        .collect();
    // The reference is read last, a little later than all: what anybody saw has come to it as well.
    let mark = reference.count();
    reference.wait_pictures_after(mark);
    let all = pictures(&reference.tags());
    for (number, mine) in seen.iter().enumerate() {
        let start = all.iter().position(|hash| *hash == mine[0]);
        let start = start.unwrap_or_else(|| panic!("viewer {number}: begins with an unknown picture"));
        let same = all[start..].iter().zip(mine).take_while(|(one, other)| one == other).count();
        assert_eq!(same, mine.len(), "viewer {number}: differs at picture {same} after {start}");
    }
    origin.assert_up();
    gateway.assert_up();
}

/// The pictures from the first keyframe on.
fn pictures(tags: &[Brief]) -> Vec<u64> {
    tags.iter().filter(|tag| tag.is_picture()).skip_while(|tag| !tag.key).map(|tag| tag.hash).collect()
}
