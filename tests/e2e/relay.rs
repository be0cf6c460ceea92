//! Streams that go on to another server, and streams that come from one, by configuration.

use std::path::Path;
use std::time::Duration;

use crate::harness::flv::{self, Brief};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch};

fn origin(scratch: &Scratch, name: &str, config: &str, [rtmp, flv]: [&str; 2]) -> Server {
    let file = scratch.path(&format!("{name}.toml"));
    std::fs::write(&file, config).unwrap();
    let any = "127.0.0.1:0";
    let args = ["origin", "--config", file.to_str().unwrap(), "--rtmp", rtmp, "--flv", flv, "--web", any];
    let more = ["--admin", any, "--wait", "20s", "--gap", "3s"];
    Server::start(&scratch.path(""), &[&args[..], &more].concat())
}

fn media(tags: &[Brief]) -> Vec<u64> {
    tags.iter().filter(|tag| tag.kind != flv::SCRIPT).map(|tag| tag.hash).collect()
}

#[test]
fn forwards_and_fetches_carry_every_tag_and_come_back() {
    let scratch = Scratch::new("relay");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let any = "127.0.0.1:0";
    // Two that take; their ports must be known before the one that forwards starts.
    let sink = origin(&scratch, "sink", "loops = 2\n", [any; 2]);
    let (rtmp, flv) = (sink.addr("rtmp").to_string(), sink.addr("flv").to_string());
    let config = format!(
        "loops = 2\n[[forward]]\nstream = \"live/*\"\nto = \"rtmp://{rtmp}/copy/{{app}}-{{name}}-rtmp\"\n\
         [[forward]]\nstream = \"live/show\"\nto = \"http://{flv}/copy/show-http\"\n"
    );
    let source = origin(&scratch, "source", &config, [any; 2]);
    let (rtmp, flv) = (source.addr("rtmp"), source.addr("flv"));
    let config = format!(
        "loops = 2\n[[pull]]\nstream = \"far/rtmp\"\nfrom = \"rtmp://{rtmp}/live/show\"\n\
         [[pull]]\nstream = \"far/http\"\nfrom = \"http://{flv}/live/show.flv\"\n"
    );
    let fetcher = origin(&scratch, "fetcher", &config, [any; 2]);

    let places = [
        (&sink, "/copy/live-show-rtmp.flv"),
        (&sink, "/copy/show-http.flv"),
        (&fetcher, "/far/rtmp.flv"),
        (&fetcher, "/far/http.flv"),
    ];
    let early = places.map(|(server, path)| (path, Watch::early(server.addr("flv"), path, Flavor::Http)));
    std::thread::sleep(Duration::from_millis(800));
    let url = source.rtmp("live/show");
    let command = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_uringcast"));
        command.arg("push").arg(&clip).arg(&url).args(more);
        command
    };
    let mut pusher = Guard::spawn("push", &mut command(&["--speed", "2"]));
    assert!(pusher.wait(), "{:?}", pusher.log());
    let want = media(&flv::read(&std::fs::read(&clip).unwrap()));
    for (path, early) in early {
        let watch = early.join().unwrap().unwrap_or_else(|error| panic!("{path}: {error}"));
        watch.wait_end();
        assert_eq!(media(&watch.tags()), want, "{path}");
    }

    // The server that is forwarded to goes and comes back.
    let _pusher = Guard::spawn("push", &mut command(&["--loop"]));
    let ports = ["rtmp", "flv"].map(|name| sink.addr(name).to_string());
    Watch::start(sink.addr("flv"), "/copy/show-http.flv", Flavor::Http).wait_pictures_after(0);
    let fetched = Watch::start(fetcher.addr("flv"), "/far/rtmp.flv", Flavor::Http);
    drop(sink);
    let sink = origin(&scratch, "sink", "loops = 2\n", ports.each_ref().map(String::as_str));
    for path in ["/copy/live-show-rtmp.flv", "/copy/show-http.flv"] {
        Watch::start(sink.addr("flv"), path, Flavor::Http).wait_pictures_after(0);
    }
    fetched.wait_pictures_after(fetched.count());
    fetched.assert_well();
    source.wait_log("relay lost");
}
