//! Names of streams: who may have one, for how long, and how many there are.

use std::time::Duration;

use crate::harness::raw::{
    FILE_HEADER, Feed, Poster, Rtmp, exchange, opening, opening_messages, picture, publish, rest,
    video_header,
};
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};

const NO_RECORD: [&str; 2] = ["--record", "none"];

/// A push that goes on by a byte now and then keeps no name.
#[test]
fn a_name_is_not_held_without_media() {
    let scratch = Scratch::new("without-media");
    let config = "[origin]\ngap = \"0s\"\nsilence = \"1s\"\nrepublish = \"reject\"\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let flv = origin.addr("flv");
    for first in [FILE_HEADER.to_vec(), [FILE_HEADER, &video_header(0)].concat(), opening()] {
        let mut holder = Poster::start(flv, "live/held");
        assert!(holder.send(&first));
        // A tag that never comes to its end.
        let mut drip = picture(true, 40, 60_000).into_iter();
        until("the holder to be closed", || {
            std::thread::sleep(Duration::from_millis(100));
            (!holder.send(&[drip.next().unwrap()])).then_some(())
        });
        let taken = Poster::opened(flv, "live/held").finish();
        assert!(taken.starts_with("HTTP/1.1 200 "), "{taken}");
    }
    let mut rtmp = Rtmp::connect(origin.addr("rtmp"), "live");
    rtmp.say(&[publish("held")]);
    rtmp.wait("NetStream.Publish.Start");
    rest(&mut rtmp.0);
    let taken = Poster::opened(flv, "live/held").finish();
    assert!(taken.starts_with("HTTP/1.1 200 "), "{taken}");
    origin.assert_up();
}

#[test]
fn apps_of_the_servers_own_paths_are_refused() {
    let scratch = Scratch::new("reserved");
    let mut origin = Server::origin_with(&scratch.path(""), "", &NO_RECORD);
    for (turn, app) in ["hls", "mp4", "flv", "api"].into_iter().enumerate() {
        for name in ["flv", "web"] {
            let mut poster = Poster::start(origin.addr(name), &format!("{app}/x"));
            poster.send(&opening());
            let answer = poster.finish();
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("reserved"), "{app}: {answer}");
        }
        let mut rtmp = Rtmp::connect(origin.addr("rtmp"), app);
        rtmp.say(&[publish("x")]);
        rtmp.wait("reserved");
        assert_eq!(origin.refused("reserved-name"), 3 * (turn + 1));
    }
    origin.assert_up();
}

#[test]
fn names_of_recorded_files_are_refused_with_a_reason() {
    let scratch = Scratch::new("recorded-names");
    let mut origin = Server::origin_with(&scratch.path(""), "", &["--record", "flv,hls,fmp4"]);
    for name in ["x/index.m3u8", "x/segment_0.ts", "x/output_merge", "take.json", "x.journal", "x.tmp"] {
        for port in ["flv", "web"] {
            let mut poster = Poster::start(origin.addr(port), &format!("live/{name}"));
            poster.send(&opening());
            let answer = poster.finish();
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("recordings"), "{name}: {answer}");
        }
        let mut rtmp = Rtmp::connect(origin.addr("rtmp"), "live");
        rtmp.say(&[publish(name)]);
        rtmp.wait("recordings");
    }
    let mut long = Poster::start(origin.addr("flv"), &format!("live/{}", "n".repeat(240)));
    long.send(&opening());
    assert!(long.finish().contains("limit 233"));
    origin.assert_up();
}

#[test]
fn there_are_as_many_streams_as_there_may_be() {
    let scratch = Scratch::new("streams-limit");
    let config = "[origin]\ngap = \"0s\"\n[limits]\nstreams = 2\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let flv = origin.addr("flv");
    let _first = Feed::start(flv, "live/one");
    let second = Poster::opened(flv, "live/two");
    origin.wait_metric("uringcast_streams", "", |streams| streams == 2.0);
    let mut third = Poster::start(flv, "live/three");
    third.send(&opening());
    let answer = third.finish();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("streams"), "{answer}");
    let mut rtmp = Rtmp::connect(origin.addr("rtmp"), "live");
    rtmp.say(&[vec![publish("three")], opening_messages()].concat());
    rtmp.wait("as many streams");
    assert_eq!(origin.refused("streams"), 2);
    second.finish();
    until("a place for another one", || {
        let mut third = Poster::start(flv, "live/three");
        let sent = third.send(&opening());
        (third.finish().starts_with("HTTP/1.1 200 ") && sent).then_some(())
    });
    origin.assert_up();
}

/// The list of many streams, asked for again and again by many: a viewer's bytes come on time all the same.
#[test]
fn a_flood_for_the_list_of_streams_stops_no_viewer() {
    const STREAMS: usize = 200;
    let scratch = Scratch::new("list-flood");
    let mut origin = Server::origin_with(&scratch.path(""), "loops = 1\n", &NO_RECORD);
    let flv = origin.addr("flv");
    let _held: Vec<Poster> =
        (0..STREAMS).map(|turn| Poster::opened(flv, &format!("live/{}-{turn}", "n".repeat(60)))).collect();
    let _feed = Feed::start(flv, "live/watched");
    let watch = Watch::start(flv, "/live/watched.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let ask = "GET /api/v1/streams HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40);
    let clients: Vec<_> = (0..30)
        .map(|turn| {
            let addr = origin.addr(["flv", "web"][turn % 2]);
            let ask = format!("{ask}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            std::thread::spawn(move || exchange(addr, ask.as_bytes()))
        })
        .collect();
    watch.wait_pictures_after(watch.count());
    for client in clients {
        let answers = client.join().unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 41);
        assert!(answers.contains("live/watched"));
    }
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    until("all streams in the list", || {
        let (_, body) = http(flv, "GET", "/api/v1/streams", "");
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (said["total"].as_u64() == Some(STREAMS as u64 + 1)).then_some(())
    });
    origin.assert_up();
}
