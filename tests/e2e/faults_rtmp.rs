//! RTMP connections that do one thing after another, in orders that no player or encoder has: nothing is left of
//! what they did, and nobody else notices.

use std::io::Write;

use crate::harness::raw::{
    Feed, Rtmp, boolean, command, connect, delete_stream, message, number, opening_messages, picture, play,
    publish, rest, text,
};
use crate::harness::{Flavor, Scratch, Server, Watch};

fn pause(paused: bool) -> Vec<u8> {
    command(1, "pause", &[boolean(paused), number(0.0)])
}

/// A viewer that has paused and left its stream publishes another one: the end of what it had paused is no concern
/// of it any more.
#[test]
fn a_viewer_that_has_paused_and_left_may_publish() {
    let scratch = Scratch::new("paused-left");
    let mut origin =
        Server::origin_with(&scratch.path(""), "[origin]\ngap = \"0s\"\n", &["--record", "none"]);
    let feed = Feed::start(origin.addr("flv"), "live/first");
    let mut rtmp = Rtmp::connect(origin.addr("rtmp"), "live");
    rtmp.say(&[play("first")]);
    rtmp.wait("NetStream.Play.Start");
    rtmp.say(&[pause(true)]);
    rtmp.wait("NetStream.Pause.Notify");
    rtmp.say(&[delete_stream(), command(0, "createStream", &[])]);
    rtmp.wait("_result");
    rtmp.say(&[publish("second")]);
    rtmp.wait("NetStream.Publish.Start");
    rtmp.say(&opening_messages());
    let watch = Watch::start(origin.addr("flv"), "/live/second.flv", Flavor::Http);
    watch.wait("a keyframe", |tags| tags.iter().any(|tag| tag.key));
    drop(feed);
    origin.wait_metric("uringcast_streams", "", |streams| streams == 1.0);
    for turn in 1..20 {
        rtmp.say(&[message(6, 9, 1, &picture(true, 0, 200)[11..216])]);
        watch.wait("pictures", |tags| tags.iter().filter(|tag| tag.key).count() > turn);
    }
    watch.assert_well();
    origin.assert_up();
}

#[test]
fn odd_orders_of_commands_leave_nothing_behind() {
    let scratch = Scratch::new("odd-orders");
    let config = "loops = 1\n[origin]\ngap = \"0s\"\nwait = \"500ms\"\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &["--record", "none"]);
    let addr = origin.addr("rtmp");
    let _feed = Feed::start(origin.addr("flv"), "live/there");
    let watch = Watch::start(origin.addr("flv"), "/live/there.flv", Flavor::Http);
    let fc_unpublish = || command(0, "FCUnpublish", &[text("there")]);
    let close_stream = || command(1, "closeStream", &[]);
    let create = || command(0, "createStream", &[]);
    let receive = |what: &str, wanted| command(1, what, &[boolean(wanted)]);
    let orders: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (
            "play, publish, pause, FCUnpublish",
            vec![play("there"), publish("odd"), pause(true), fc_unpublish(), pause(false)],
        ),
        ("delete twice", vec![play("there"), delete_stream(), delete_stream(), create(), play("there")]),
        ("a play while another one waits", vec![play("none"), play("there"), delete_stream(), play("there")]),
        (
            "publish, delete, publish in one piece",
            vec![publish("there"), delete_stream(), create(), publish("odd2"), delete_stream()],
        ),
        ("publish twice", vec![publish("odd3"), publish("odd4"), fc_unpublish(), fc_unpublish()]),
        ("publish, play, closeStream", vec![publish("odd5"), play("there"), close_stream(), play("there")]),
        ("pause before play", vec![pause(true), play("there"), pause(true), pause(true), close_stream()]),
        (
            "nothing is received",
            vec![
                play("there"),
                receive("receiveVideo", false),
                receive("receiveAudio", false),
                pause(true),
                receive("receiveVideo", true),
                pause(false),
                delete_stream(),
            ],
        ),
        (
            "a wait that pauses",
            vec![play("none"), pause(true), receive("receiveAudio", false), delete_stream()],
        ),
        ("media without a publish", opening_messages()),
        (
            "publish, media, delete, media",
            [vec![publish("odd6")], opening_messages(), vec![delete_stream()], opening_messages()].concat(),
        ),
        ("names that are none", vec![publish(""), publish("../x"), play(""), play("a b/\u{1}")]),
    ];
    for pieces in [true, false] {
        for (_, order) in &orders {
            // Closed at each point of its order: at once, and after the last answer.
            for end in 0..=order.len() {
                let mut rtmp = Rtmp::connect(addr, "live");
                if pieces {
                    order[..end].iter().for_each(|part| drop(rtmp.0.write_all(part)));
                } else {
                    let _ = rtmp.0.write_all(&order[..end].concat());
                }
            }
        }
    }
    origin.assert_up();
    origin.wait_metric("uringcast_connections", "", |open| open <= 3.0);
    origin.wait_metric("uringcast_publishers", "", |publishers| publishers == 1.0);
    origin.wait_metric("uringcast_streams", "", |streams| streams == 1.0);
    let seen = watch.count();
    watch.wait("the next picture", |tags| tags.len() > seen);
    watch.assert_well();
    origin.assert_up();
}

/// Commands without an end, and none at all.
#[test]
fn commands_without_end_are_refused() {
    let scratch = Scratch::new("commands");
    let mut origin = Server::origin_with(&scratch.path(""), "", &["--record", "none"]);
    let addr = origin.addr("rtmp");
    for flood in [publish("x"), play("x"), pause(true), delete_stream(), command(0, "createStream", &[])] {
        let mut rtmp = Rtmp::connect(addr, "live");
        let _ = rtmp.0.write_all(&flood.repeat(20_000));
        rest(&mut rtmp.0);
    }
    let mut silent = connect(addr);
    let _ = silent.write_all(&[3; 100]);
    rest(&mut silent);
    origin.assert_up();
}
