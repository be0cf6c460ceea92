//! Something dies and comes back; whoever watches stays.

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::flv::VIDEO;
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg, until};

const KEY: &str = "live/again";
const PLAY: &str = "/live/again.flv";

#[test]
fn a_publisher_that_comes_back_keeps_its_viewers() {
    need_ffmpeg!();
    let scratch = Scratch::new("publisher");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let mut origin = Server::origin(&scratch.path(""), "20s");
    let gateway = Server::gateway(&scratch.path(""), "20s", origin.addr("flv"));
    let mut publisher = publish(&clip, &origin.rtmp(KEY), true);
    let watches = [
        Watch::start(origin.addr("flv"), PLAY, Flavor::Http),
        Watch::start(origin.addr("flv"), PLAY, Flavor::Ws),
        Watch::start(gateway.addr("listen"), PLAY, Flavor::Http),
    ];
    for round in 0..2 {
        watches.iter().for_each(|watch| watch.wait_pictures_after(0));
        publisher.kill();
        let marks = watches.each_ref().map(settled);
        publisher = publish(&clip, &origin.rtmp(KEY), true);
        for (watch, mark) in watches.iter().zip(marks) {
            watch.wait_pictures_after(mark);
            watch.assert_well();
        }
        origin.assert_up();
        assert!(publisher.is_running(), "round {round}: {:?}", publisher.log());
    }
}

/// The number of tags once no more come.
fn settled(watch: &Watch) -> usize {
    let mut last = (watch.count(), std::time::Instant::now());
    until("the stream to pause", || {
        let count = watch.count();
        if count != last.0 {
            last = (count, std::time::Instant::now());
        }
        (last.1.elapsed().as_millis() > 700).then_some(count)
    })
}

#[test]
fn an_origin_that_comes_back_keeps_the_gateways_viewers() {
    need_ffmpeg!();
    let scratch = Scratch::new("origin");
    let home = scratch.path("");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let mut origin = Server::origin(&home, "20s");
    let gateway = Server::gateway(&home, "30s", origin.addr("flv"));
    let publisher = publish(&clip, &origin.rtmp(KEY), true);
    let watches = [Flavor::Http, Flavor::Ws].map(|flavor| Watch::start(gateway.addr("listen"), PLAY, flavor));
    watches.iter().for_each(|watch| watch.wait_pictures_after(0));

    let ports = ["rtmp", "flv", "web", "admin"].map(|name| origin.addr(name).to_string());
    origin.guard.kill();
    drop(publisher);
    let marks = watches.each_ref().map(settled);
    origin = Server::origin_at(&home, "20s", ports.each_ref().map(String::as_str));
    let _publisher = publish(&clip, &origin.rtmp(KEY), true);
    for (watch, mark) in watches.iter().zip(marks) {
        watch.wait_pictures_after(mark);
        watch.assert_well();
    }
}

#[test]
fn a_gateway_in_the_middle_that_comes_back_keeps_the_viewers_below() {
    need_ffmpeg!();
    let scratch = Scratch::new("middle");
    let home = scratch.path("");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let origin = Server::origin(&home, "20s");
    let first = Server::gateway(&home, "30s", origin.addr("flv"));
    let mut second = Server::gateway(&home, "30s", first.addr("listen"));
    let third = Server::gateway(&home, "30s", second.addr("listen"));
    let _publisher = publish(&clip, &origin.rtmp(KEY), true);
    let watch = Watch::start(third.addr("listen"), PLAY, Flavor::Http);
    watch.wait_pictures_after(0);

    let listen = second.addr("listen").to_string();
    second.guard.kill();
    let mark = settled(&watch);
    second = Server::gateway_at(&home, "30s", first.addr("listen"), &listen);
    watch.wait_pictures_after(mark);
    watch.assert_well();
    second.assert_up();
}

#[test]
fn a_new_resolution_reaches_viewers_before_its_first_keyframe() {
    need_ffmpeg!();
    let scratch = Scratch::new("resolution");
    let (small, large) = (scratch.path("small.flv"), scratch.path("large.flv"));
    make_clip(&small, 30, "320x180");
    make_clip(&large, 30, "480x270");
    let origin = Server::origin(&scratch.path(""), "20s");
    let gateway = Server::gateway(&scratch.path(""), "20s", origin.addr("flv"));
    let mut publisher = publish(&small, &origin.rtmp(KEY), true);
    let watches =
        [origin.addr("flv"), gateway.addr("listen")].map(|addr| Watch::start(addr, PLAY, Flavor::Http));
    watches.iter().for_each(|watch| watch.wait_pictures_after(0));

    publisher.kill();
    let marks = watches.each_ref().map(settled);
    let _publisher = publish(&large, &origin.rtmp(KEY), true);
    for (watch, mark) in watches.iter().zip(marks) {
        watch.wait_pictures_after(mark);
        let tags = watch.tags();
        let before = tags.iter().find(|tag| tag.kind == VIDEO && tag.header).unwrap();
        let fresh: Vec<_> = tags[mark..].iter().filter(|tag| tag.header || tag.is_picture()).collect();
        let header = fresh.iter().position(|tag| tag.kind == VIDEO && tag.header);
        let picture = fresh.iter().position(|tag| tag.is_picture()).unwrap();
        let header = header.unwrap_or_else(|| panic!("no new sequence header in {fresh:?}"));
        assert!(header < picture, "the header comes after a picture: {fresh:?}");
        assert_ne!(fresh[header].hash, before.hash);
        assert!(fresh[picture].key);
        watch.assert_well();
    }
}
