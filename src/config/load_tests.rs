use std::time::Duration;

use super::*;

/// A file in the temporary folder, removed when the test ends.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uringcast-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.0.clone()), ..Sources::default() }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn flag(name: &str, key: &str, value: &str) -> Setting {
    Setting { place: Place::Flag(name.to_owned()), key: key.to_owned(), value: value.to_owned() }
}

fn environment(sources: Sources, pairs: &[(&str, &str)]) -> Sources {
    sources.with_environment(pairs.iter().map(|(name, value)| (name.into(), value.into())))
}

/// The error of a file as the user sees it, without the file's folder and name.
fn refused(name: &str, text: &str) -> String {
    let file = TempFile::new(name, text);
    let error = file.sources().check().unwrap_err().to_string();
    error.strip_prefix(file.0.to_str().unwrap()).expect("the file is named").to_owned()
}

#[test]
fn without_any_source_the_defaults_hold() {
    assert_eq!(Sources::default().load(Role::Origin).unwrap().origin, Config::default().origin);
    assert_eq!(Sources::default().check().unwrap(), Config::default());
}

#[test]
fn each_layer_beats_the_one_below() {
    let file = TempFile::new(
        "layers",
        "drain = '1s'\n[origin]\nflush = '1ms'\nwait = '1s'\ngap = '1s'\n[live]\nlag_bytes = 1048576\n",
    );
    let mut sources = environment(
        file.sources(),
        &[
            ("URINGCAST_ORIGIN__WAIT", "2s"),
            ("URINGCAST_ORIGIN__GAP", "2s"),
            ("URINGCAST_LOOPS", "3"),
            ("URINGCAST_LIVE__GOP_BYTES", "64MiB"),
            ("OTHER", "x"),
        ],
    );
    sources.flags.push(flag("--gap", "origin.gap", "3s"));
    let config = sources.load(Role::Origin).unwrap();
    let origin = &config.origin;
    assert_eq!((origin.flush.every(), origin.wait), (Some(Duration::from_millis(1)), Duration::from_secs(2)));
    assert_eq!((origin.gap, origin.silence), (Duration::from_secs(3), Duration::from_secs(15)));
    assert_eq!((config.drain, config.loops), (Duration::from_secs(1), 3));
    assert_eq!((config.live.lag_bytes, config.live.gop_bytes), (1 << 20, 64 << 20));
}

#[test]
fn upstreams_may_be_a_list_or_text() {
    let file = TempFile::new("list", "[flv_gateway]\nupstream = ['http://a:1', 'http://b:2/x']\n");
    let config = file.sources().load(Role::FlvGateway).unwrap();
    let urls: Vec<String> = config.flv_gateway.upstream.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["http://a:1", "http://b:2/x"]);

    let sources = environment(file.sources(), &[("URINGCAST_FLV_GATEWAY__UPSTREAM", "http://c")]);
    assert_eq!(sources.load(Role::FlvGateway).unwrap().flv_gateway.upstream.len(), 1);
    let record = TempFile::new("record", "[origin]\nrecord = ['flv', 'hls']\n");
    assert_eq!(record.sources().check().unwrap().origin.record.to_string(), "flv,hls");
}

#[test]
fn admin_knows_whether_it_was_written() {
    let default = Sources::default().load(Role::Origin).unwrap();
    let port = default.admin.as_ref().map(crate::config::Listen::port);
    assert_eq!((port, default.admin_explicit), (Some(9935), false));
    let mut sources = Sources::default();
    sources.flags.push(flag("--admin", "admin", "127.0.0.1:9935"));
    let given = sources.load(Role::Origin).unwrap();
    assert_eq!((given.admin, given.admin_explicit), (default.admin, true));
    sources.flags.push(flag("--admin", "admin", "off"));
    assert_eq!(sources.load(Role::Origin).unwrap().admin, None);
}

#[test]
fn roles_together_fill_in_what_was_left_out() {
    let mut sources = Sources::default();
    sources.flags.push(flag("--flv", "origin.flv", ":9000"));
    sources.flags.push(flag("--data", "origin.data", "/srv/media"));
    let config = sources.load(Role::AllInOne).unwrap();
    assert_eq!(config.flv_gateway.upstream[0].to_string(), "http://127.0.0.1:9000");
    assert_eq!(config.file_gateway.root, PathBuf::from("/srv/media"));
    let demo = Sources::default().load(Role::Demo { gateway: true }).unwrap();
    let listeners = [&demo.origin.rtmp, &demo.origin.flv, &demo.origin.web, &demo.flv_gateway.listen];
    assert!(listeners.into_iter().all(|listen| listen.iter().all(|address| address.ip().is_loopback())));
}

#[test]
fn a_certificate_adds_the_port_of_https() {
    let web = |role, more: &[Setting]| {
        let own = [flag("--tls-cert", "tls.cert", "c"), flag("--tls-key", "tls.key", "k")];
        let sources = Sources { flags: [&own, more].concat(), ..Sources::default() };
        sources.load(role).unwrap().origin.web.to_string()
    };
    assert_eq!(web(Role::Origin, &[]), "0.0.0.0:80,0.0.0.0:443");
    assert_eq!(web(Role::Origin, &[flag("--web", "origin.web", ":80")]), "0.0.0.0:80");
    assert_eq!(web(Role::Demo { gateway: false }, &[]), "127.0.0.1:8088");
}

#[test]
fn errors_name_line_key_and_remedy() {
    assert_eq!(
        refused("unknown", "drain = '1s'\n\n[origin]\nflush = '0ms'\nrmtp = ':1'\n"),
        ":5: origin.rmtp: no such key, did you mean \"rtmp\"?"
    );
    assert_eq!(refused("top", "[orijin]\n"), ":1: orijin: no such key, did you mean \"origin\"?");
    assert_eq!(
        refused("type", "[origin]\nrtmp = 'localhost:1'\n"),
        ":2: origin.rtmp: \"localhost:1\" is not an address: \
         write \"0.0.0.0:8080\", \"[::]:8080\" or \":8080\""
    );
    assert_eq!(
        refused("rule", "# a comment\n[origin]\nflush = \"6s\"\n"),
        ":3: origin.flush: 6s is more than 5s, and viewers would lag by as much: lower it"
    );
    assert_eq!(
        refused("inline", "\nlive = { gop_bytes = '1MiB' }\n"),
        ":2: live.gop_bytes: 1MiB is less than live.tag_max (16MiB), and a whole tag must fit: raise it"
    );
    assert_eq!(
        refused("bool", "[live]\nstall = true\n"),
        ":2: live.stall: bool true was given, a duration as \"10s\" is needed"
    );
    assert!(refused("count", "loops = -1\n").starts_with(":1: loops: "));
    assert!(refused("syntax", "[origin]\nrtmp = \n").starts_with(":2: not TOML: "));
    assert_eq!(refused("table", "origin = 5\n"), ":1: origin: signed int `5` was given, a table is needed");
    assert!(refused("hidden", "admin_explicit = true\n").starts_with(":1: admin_explicit: no such key"));
}

#[test]
fn errors_in_an_array_of_tables_name_its_line() {
    let good = "[[forward]]\nstream = 'a/*'\nto = 'rtmp://h/a/{name}'\n\n";
    assert_eq!(
        refused("forward-url", &format!("{good}[[forward]]\nstream = 'a/b'\nto = 'ftp://h/a/KEY'\n")),
        ":7: forward.1.to: \"ftp://h/a/***\" is not the URL of a stream (only rtmp://, rtmps://, http:// and https:// \
         are spoken): \
         write \"rtmp://host/app/name\" or \"http://host:8501/app/name.flv\""
    );
    assert_eq!(
        refused("forward-key", &format!("{good}[[forward]]\nsteam = 'a/b'\nto = 'rtmp://h/a/b'\n")),
        ":6: forward.1.steam: no such key, did you mean \"stream\"?"
    );
    assert_eq!(
        refused("forward-missing", &format!("{good}[[forward]]\nstream = 'a/b'\n")),
        ":5: forward.1: to is missing here"
    );
    assert_eq!(
        refused("forward-type", "\nforward = 'rtmp://h/a/KEY'\n"),
        ":2: forward: string \"rtmp://h/a/***\" was given, a list is needed"
    );
}

#[test]
fn every_kind_of_value_can_be_set_by_the_environment() {
    let sources = environment(
        Sources::default(),
        &[
            ("URINGCAST_RECORDING__SYNC", "false"),
            ("URINGCAST_RECORDING__WINDOW", "9"),
            ("URINGCAST_ORIGIN__DATA", "2026"),
            ("URINGCAST_ORIGIN__RECORD_APPS", "{ live = 'hls', 'events/main' = 'none' }"),
            (
                "URINGCAST_RECORDING__APPS",
                "{ 'live/*' = { keep_size = '1GiB', keep_time = '0s' }, 'a/b' = { keep_size_per_stream = 5 } }",
            ),
            ("URINGCAST_FORWARD", r#"[{"stream": "live/*", "to": "rtmp://h/a/{name}"}]"#),
            ("URINGCAST_PULL", "[{ stream = 'live/x', from = 'http://h/live/x.flv' }]"),
            ("URINGCAST_LIMITS__TRUSTED", "203.0.113.0/24, 2001:db8::/32"),
            ("URINGCAST_LIMITS__PUBLISH_BITRATE", "1000000"),
        ],
    );
    let config = sources.load(Role::Origin).unwrap();
    assert_eq!((config.recording.sync, config.recording.window), (false, 9));
    assert_eq!(config.origin.data, PathBuf::from("2026"));
    assert_eq!(config.origin.record_of("live").to_string(), "hls");
    assert_eq!(config.origin.record_apps.len(), 2);
    let quota = |stream| config.recording.quota_of(stream).unwrap().1;
    assert_eq!((quota("live/x").keep_size, quota("live/x").keep_time), (1 << 30, Some(Duration::ZERO)));
    assert_eq!((quota("a/b").keep_size_per_stream, quota("a/b").keep_time), (5, None));
    assert_eq!((config.forward.len(), config.pull.len(), config.limits.trusted.len()), (1, 1, 2));
    assert_eq!(config.limits.publish_bitrate.to_string(), "1Mbps");

    let error = |name, value| {
        let sources = environment(Sources::default(), &[(name, value)]);
        sources.load(Role::Origin).unwrap_err().to_string()
    };
    assert_eq!(
        error("URINGCAST_RECORDING__SYNC", "maybe"),
        "environment variable URINGCAST_RECORDING__SYNC: recording.sync: \
         string \"maybe\" was given, a boolean is needed"
    );
    let wrong = error("URINGCAST_FORWARD", "rtmp://h/a/KEY");
    assert!(
        wrong.starts_with("environment variable URINGCAST_FORWARD: forward: this is not a list"),
        "{wrong}"
    );
    assert!(!wrong.contains("KEY"), "{wrong}");
    let inside = error("URINGCAST_FORWARD", "[{ stream = 'a/b', to = 'x' }]");
    assert!(inside.starts_with("environment variable URINGCAST_FORWARD: forward.0.to: "), "{inside}");
}

#[test]
fn errors_name_the_variable_or_the_flag() {
    let error = |sources: &Sources| sources.load(Role::Origin).unwrap_err().to_string();
    let sources = environment(Sources::default(), &[("URINGCAST_ORIGIN__FLUSH", "soon")]);
    assert!(error(&sources).starts_with("environment variable URINGCAST_ORIGIN__FLUSH: origin.flush: "));
    let sources = environment(Sources::default(), &[("URINGCAST_ORIGIN__FLASH", "1s")]);
    assert_eq!(
        error(&sources),
        "environment variable URINGCAST_ORIGIN__FLASH: origin.flash: \
         no such key, did you mean \"flush\"?"
    );
    let mut sources = Sources::default();
    sources.flags.push(flag("--flush", "origin.flush", "6s"));
    assert!(error(&sources).starts_with("flag --flush: origin.flush: 6s is more than 5s"));
    let missing = Sources { file: Some("/nonexistent/x.toml".into()), ..Sources::default() };
    assert!(error(&missing).starts_with("/nonexistent/x.toml: no such file"));
    let gateway = Sources::default().load(Role::FlvGateway).unwrap_err().to_string();
    assert!(gateway.ends_with("give --upstream http://ORIGIN:8501"), "{gateway}");
}

#[test]
fn a_token_that_is_refused_is_not_repeated() {
    for value in ["too-short", "1234567890123456789"] {
        let sources = environment(Sources::default(), &[("URINGCAST_ADMIN_TOKEN", value)]);
        let error = sources.load(Role::Origin).unwrap_err().to_string();
        assert!(error.starts_with("environment variable URINGCAST_ADMIN_TOKEN: admin_token: "), "{error}");
        assert!(!error.contains(value), "{error}");
    }
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let sources = environment(Sources::default(), &[(ENV_FILE, "/a.toml")]);
    assert_eq!((sources.file, sources.environment.len()), (Some("/a.toml".into()), 0));
    let named = Sources { file: Some("/b.toml".into()), ..Sources::default() };
    assert_eq!(environment(named, &[(ENV_FILE, "/a.toml")]).file, Some("/b.toml".into()));
}

fn example(name: &str) -> Sources {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name);
    Sources { file: Some(path), ..Sources::default() }
}

#[test]
fn examples_are_good_for_their_roles() {
    example("uringcast.toml").load(Role::AllInOne).unwrap();
    example("origin.toml").load(Role::Origin).unwrap();
    example("flv-gateway.toml").load(Role::FlvGateway).unwrap();
    example("file-gateway.toml").load(Role::FileGateway).unwrap();
}

/// Every `#key = value` line of the reference file, uncommented, must give the defaults, and no key may be
/// missing.
#[test]
fn the_reference_file_names_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/uringcast.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let setting = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let live: Vec<&str> =
        text.lines().map(|line| line.strip_prefix('#').filter(setting).unwrap_or(line)).collect();
    let written = parse_toml(&path, &live.join("\n")).unwrap();

    let values = |dict: Dict| {
        let layer = Layer { name: FILE.to_owned(), dict };
        Figment::from(Serialized::defaults(Config::default())).merge(layer).extract::<Config>().unwrap()
    };
    assert_eq!(values(written.clone()), Config::default());

    let Value::Dict(_, defaults) = Value::serialize(Config::default()).unwrap() else { panic!("a table") };
    assert_eq!(keys("", &written), keys("", &defaults));
}

fn keys(prefix: &str, dict: &Dict) -> Vec<String> {
    let mut list = Vec::new();
    for (name, value) in dict {
        match value {
            Value::Dict(_, inner) => list.extend(keys(&format!("{prefix}{name}."), inner)),
            _ => list.push(format!("{prefix}{name}")),
        }
    }
    list
}

#[test]
fn words_are_compared_by_their_letters() {
    assert_eq!((distance("rmtp", "rtmp"), distance("", "ab"), distance("abc", "abc")), (2, 2, 0));
    assert_eq!(nearest("zzz", &["rtmp"]), None);
}
