//! Players and an encoder that are neither ours nor ffmpeg's: GStreamer and VLC, which decode what they get.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::flv::{self, Brief};
use crate::harness::players::{available, pipeline, vlc};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg};

fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv")
}

/// An origin with `live/show`, which goes on for ever.
fn show(scratch: &Scratch) -> (Server, Guard) {
    let origin = Server::origin(&scratch.path(""), "1s");
    let mut push = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    push.arg("push").arg(clip()).args([&origin.rtmp("live/show"), "--loop"]);
    let push = Guard::spawn("push", &mut push);
    Watch::start(origin.addr("flv"), "/live/show.flv", Flavor::Http).wait_pictures_after(0);
    (origin, push)
}

#[test]
fn gstreamer_plays_and_pushes() {
    if !available("gst-launch-1.0") {
        return;
    }
    let scratch = Scratch::new("gstreamer");
    let (mut origin, _push) = show(&scratch);
    let (rtmp, flv_addr) = (origin.rtmp("live/show"), origin.addr("flv"));
    let sources = [
        format!("rtmp2src location={rtmp}"),
        format!("rtmpsrc location={rtmp}"),
        format!("souphttpsrc location=http://{flv_addr}/live/show.flv"),
    ];
    for source in sources {
        // It ends well only when so much was decoded.
        let some = "identity eos-after=25 ! fakesink";
        let decode = format!(
            "flvdemux name=d d.video ! queue ! h264parse ! openh264dec ! {some} d.audio ! queue ! aacparse ! {some}"
        );
        let mut player = pipeline(&format!("{source} ! {decode}"));
        assert!(player.wait(), "{source}: {:?}", player.log());
    }

    let early = Watch::early(flv_addr, "/live/pushed.flv", Flavor::Http);
    std::thread::sleep(Duration::from_millis(300));
    let (file, to) = (clip(), origin.rtmp("live/pushed"));
    let mut pusher = pipeline(&format!(
        "filesrc location={} ! flvdemux name=d flvmux name=m streamable=true ! rtmp2sink location={to} sync=false \
         d.video ! queue ! h264parse ! m.video d.audio ! queue ! aacparse ! m.audio",
        file.display()
    ));
    assert!(pusher.wait(), "{:?}", pusher.log());
    let watch = early.join().unwrap().unwrap();
    watch.wait_end();
    let pictures = |tags: &[Brief]| tags.iter().filter(|tag| tag.is_picture()).count();
    assert_eq!(pictures(&watch.tags()), pictures(&flv::read(&std::fs::read(file).unwrap())));
    origin.assert_up();
}

#[test]
fn vlc_plays() {
    need_ffmpeg!();
    if !available("cvlc") {
        return;
    }
    let scratch = Scratch::new("vlc");
    let (mut origin, _push) = show(&scratch);
    for (name, url) in
        [("rtmp", origin.rtmp("live/show")), ("http", format!("http://{}/live/show.flv", origin.addr("flv")))]
    {
        let (pictures, sounds) = vlc(&scratch, &url, &["--run-time", "3"], "");
        assert!(pictures > 25 && sounds > 25, "{name}: {pictures} {sounds}");
    }
    origin.assert_up();
}
