use proptest::prelude::*;

use super::load::{access, own_key};
use super::token::{SigningKey, TokenError, sign};
use super::*;
use crate::config::{Auth, KeyRule};

const KEY: &str = "correct-horse-battery";
const SECRET: &str = "may:the-secret-of-this-server";
const NOW: u64 = 1_764_400_000;

fn rules(change: impl FnOnce(&mut Auth)) -> Access {
    let mut auth = Auth::default();
    change(&mut auth);
    access(&auth, &own_key()).unwrap()
}

fn closed() -> Access {
    rules(|auth| {
        (auth.publish, auth.play) = (Policy::Deny, Policy::Deny);
        auth.secrets = SECRET.parse().unwrap();
        auth.keys = vec![KeyRule {
            stream: "live/*".to_owned(),
            action: Action::Publish,
            key: KEY.parse().unwrap(),
            key_file: "".into(),
        }];
    })
}

fn at(address: &str) -> Asker<'static> {
    Asker { address: Some(address.parse().unwrap()), ..Asker::default() }
}

fn showing(token: &str) -> Asker<'_> {
    Asker { token: Some(token), address: Some([192, 0, 2, 1].into()), ..Asker::default() }
}

fn answer(access: &Access, action: Action, asker: &Asker<'_>) -> Result<(), Denied> {
    access.authorise(action, "live/a", asker, NOW).map(|_| ())
}

#[test]
fn by_default_this_machine_publishes_and_everyone_plays() {
    let access = rules(|_| {});
    let publish = |asker: &Asker<'_>| answer(&access, Action::Publish, asker);
    for local in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(publish(&at(local)), Ok(()), "{local}");
    }
    let why = Denied::Elsewhere(Verb(Action::Publish));
    let elsewhere = Err(why);
    for other in ["192.168.0.1", "10.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"] {
        assert_eq!(publish(&at(other)), elsewhere, "{other}");
        assert_eq!(answer(&access, Action::Play, &at(other)), Ok(()));
    }
    assert_eq!(publish(&Asker::default()), elsewhere, "an unknown address");
    assert_eq!(publish(&Asker { forwarded: true, ..at("127.0.0.1") }), elsewhere);
    let text = why.to_string();
    assert!(text.contains("auth.publish") && text.contains("auth.keys"), "{text}");
}

#[test]
fn pages_of_sites_that_are_not_listed_may_not_play_if_some_are() {
    let access = rules(|auth| auth.referers = vec!["shop.example".to_owned()]);
    let play = |referer, origin| {
        let asker = Asker { host: Some("edge.example:8501"), referer, origin, ..at("192.0.2.1") };
        answer(&access, Action::Play, &asker)
    };
    for (referer, origin) in [
        (None, None),
        (Some("https://shop.example/watch/1"), None),
        (Some("http://edge.example/index.html"), Some("https://evil.example")),
        (None, Some("https://shop.example")),
    ] {
        assert_eq!(play(referer, origin), Ok(()), "{referer:?} {origin:?}");
    }
    for (referer, origin) in [
        (Some("https://evil.example/?https://shop.example/"), None),
        (Some("https://shop.example.evil.example/"), None),
        (Some("https://shop.example@evil.example/"), None),
        (Some("about:blank"), None),
        (Some(""), None),
        (None, Some("https://evil.example")),
        (None, Some("null")),
    ] {
        assert_eq!(play(referer, origin), Err(Denied::Referer), "{referer:?} {origin:?}");
    }
    let all = rules(|_| {});
    let asker = Asker { referer: Some("https://evil.example/"), ..at("192.0.2.1") };
    assert_eq!(answer(&all, Action::Play, &asker), Ok(()));
}

#[test]
fn a_page_or_a_name_of_another_site_does_not_publish() {
    let access = rules(|auth| auth.origins = vec!["studio.example".to_owned()]);
    let publish = |host, origin| answer(&access, Action::Publish, &Asker { host, origin, ..at("127.0.0.1") });
    assert_eq!(publish(Some("localhost:8501"), None), Ok(()));
    assert_eq!(publish(Some("localhost:8501"), Some("http://localhost:8088")), Ok(()));
    assert_eq!(publish(Some("127.0.0.1:8501"), Some("https://studio.example")), Ok(()));
    assert_eq!(publish(Some("127.0.0.1:8501"), Some("https://evil.example")), Err(Denied::Origin));
    assert_eq!(publish(Some("127.0.0.1:8501"), Some("null")), Err(Denied::Origin));
    assert_eq!(publish(Some("evil.example:8501"), Some("http://evil.example:8501")), Err(Denied::Host));
    let open = rules(|auth| auth.publish = Policy::Open);
    let asker = Asker { host: Some("edge.example"), origin: Some("https://evil.example"), ..at("192.0.2.1") };
    assert_eq!(answer(&open, Action::Publish, &asker), Err(Denied::Origin));
    assert_eq!(answer(&open, Action::Play, &asker), Ok(()), "pages of other sites may play");
    let keyed = closed();
    assert_eq!(
        answer(&keyed, Action::Publish, &Asker { token: Some(KEY), ..asker }),
        Ok(()),
        "it has the key"
    );
}

#[test]
fn a_key_is_for_its_streams_and_its_action() {
    let access = closed();
    let ask =
        |action, stream, key| access.authorise(action, stream, &showing(key), NOW).map(|grant| grant.end);
    assert_eq!(ask(Action::Publish, "live/a", KEY), Ok(None));
    for stream in ["live", "live/a/b", "other/a", "live/"] {
        assert_eq!(ask(Action::Publish, stream, KEY), Err(Denied::Key(Verb(Action::Publish))), "{stream}");
    }
    assert_eq!(ask(Action::Play, "live/a", KEY), Err(Denied::Key(Verb(Action::Play))));
    for key in ["", "correct-horse-batter", "correct-horse-batterz", "correct-horse-battery "] {
        assert_eq!(ask(Action::Publish, "live/a", key), Err(Denied::Key(Verb(Action::Publish))), "{key}");
    }
    let missing = answer(&access, Action::Publish, &at("127.0.0.1"));
    assert_eq!(missing, Err(Denied::Needed(Verb(Action::Publish))));
}

#[test]
fn a_token_of_a_library_is_read() {
    let access = rules(|auth| {
        auth.play = Policy::Deny;
        auth.secrets = "your-256-bit-secret-for-tests".parse().unwrap();
    });
    // With `typ` and further claims, in another order: {"alg":"HS256","typ":"JWT"},
    // {"iat":1764390000,"stream":"live/*","exp":1764400001,"action":"play","sub":"anna"}.
    let text = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                eyJpYXQiOjE3NjQzOTAwMDAsInN0cmVhbSI6ImxpdmUvKiIsImV4cCI6MTc2NDQwMDAwMSwiYWN0aW9uIjoicGxheSIsInN1YiI6ImFubmEifQ.\
                YdQV6nbZ3TEJX3qoYFpASQhAlU2IXzUwPahXd5Nr500";
    let grant = access.authorise(Action::Play, "live/a", &showing(text), NOW).unwrap();
    assert_eq!(grant, Grant { end: None, identity: Some("subject anna".to_owned()) });
}

#[test]
fn other_algorithms_are_refused() {
    let access = closed();
    let claims = sign(&SigningKey::new(None, b"x"), &Claims::new(Action::Play, "live/a", NOW + 60));
    let claims = claims.split('.').nth(1).unwrap().to_owned();
    for header in [
        "eyJhbGciOiJub25lIn0",                    // {"alg":"none"}
        "eyJhbGciOiJSUzI1NiJ9",                   // {"alg":"RS256"}
        "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdfQ", // {"alg":"HS256","crit":["x"]}
    ] {
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{claims}.{signature}");
            let result = answer(&access, Action::Play, &showing(&token));
            assert_eq!(result, Err(TokenError::Algorithm.into()), "{header}");
        }
    }
}

#[test]
fn lists_show_what_may_be_played() {
    let access = closed();
    let of = |asker: &Asker<'_>| {
        let streams = access.streams(Action::Play, asker, NOW);
        ["live/a", "live/b", "other/a"].map(|stream| streams.contain(stream))
    };
    assert_eq!(of(&at("127.0.0.1")), [false; 3]);
    let token = |stream| access.sign(&Claims::new(Action::Play, stream, NOW + 60));
    assert_eq!(of(&showing(&token("live/a"))), [true, false, false]);
    assert_eq!(of(&showing(&token("live/*"))), [true, true, false]);
    assert_eq!(of(&showing(&token("*"))), [true; 3]);
    assert_eq!(of(&showing(KEY)), [false; 3], "a key for publishing");
    let expired = access.sign(&Claims::new(Action::Play, "*", NOW));
    assert_eq!(of(&showing(&expired)), [false; 3]);
}

#[test]
fn an_end_comes_with_the_grant() {
    let access = closed();
    let claims = Claims { end: Some(NOW + 5), ..Claims::new(Action::Play, "live/a", NOW + 60) };
    let token = access.sign(&claims);
    assert_eq!(access.authorise(Action::Play, "live/a", &showing(&token), NOW).unwrap().end, Some(NOW + 5));
}

#[test]
fn gateways_show_a_token_of_their_own() {
    let access = closed();
    let token = access.for_upstream("live/a", false, NOW).unwrap();
    assert_eq!(answer(&access, Action::Play, &showing(&token)), Ok(()));
    let plain = rules(|auth| auth.play = Policy::Deny);
    assert_eq!(
        plain.for_upstream("live/a", false, NOW),
        None,
        "there is no secret that the upstream could know"
    );
    let token = plain.for_upstream("live/a", true, NOW).unwrap();
    assert_eq!(answer(&plain, Action::Play, &showing(&token)), Ok(()));
    assert_eq!(answer(&closed(), Action::Play, &showing(&token)), Err(TokenError::Signature.into()));
    let keyed = rules(|auth| auth.upstream_key = KEY.parse().unwrap());
    assert_eq!(keyed.for_upstream("live/a", true, NOW).as_deref(), Some(KEY));
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Publish), Just(Action::Play)]
}

proptest! {
    /// A token passes for its action, stream, address and time, and for nothing else.
    #[test]
    fn a_token_passes_only_for_what_it_says(
        (action, asked) in (any_action(), any_action()),
        (stream, wanted) in ("live/[ab]", "(live|other)/[ab]"),
        life in -2i64..3,
        ip in prop::option::of(Just(IpAddr::from([192, 0, 2, 1]))),
        address in prop::option::of(prop_oneof![Just(IpAddr::from([192, 0, 2, 1])), Just(IpAddr::from([192, 0, 2, 2]))]),
        foreign: bool,
    ) {
        let access = closed();
        let exp = NOW.saturating_add_signed(life);
        let claims = Claims { ip, ..Claims::new(action, &stream, exp) };
        let stranger = SigningKey::new(Some("may"), b"the-secret-of-another-server");
        let token = if foreign { sign(&stranger, &claims) } else { access.sign(&claims) };
        let asker = Asker { token: Some(&token), address, ..Asker::default() };
        let good = !foreign && action == asked && stream == wanted && life > 0 && (ip.is_none() || ip == address);
        prop_assert_eq!(access.authorise(asked, &wanted, &asker, NOW).is_ok(), good);
        prop_assert_eq!(access.streams(asked, &asker, NOW).contain(&wanted), good);
    }

    /// A token that was cut off or changed anywhere passes for nothing, nor does the name in another spelling.
    #[test]
    fn a_changed_token_never_passes(at in 0usize..400, to in "[A-Za-z0-9_.~-]", cut: bool) {
        let access = closed();
        let token = access.sign(&Claims::new(Action::Play, "live/a", NOW + 60));
        prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)));
        let at = at % token.len();
        let changed = if cut {
            token[..at].to_owned()
        } else {
            format!("{}{to}{}", &token[..at], &token[at + 1..])
        };
        prop_assert_eq!(answer(&access, Action::Play, &showing(&changed)).is_ok(), changed == token);
    }

    #[test]
    fn a_name_in_another_spelling_is_another_stream(name in "[/.%a-z0-9A-Z]{0,12}") {
        let access = closed();
        let token = access.sign(&Claims::new(Action::Play, "live/a", NOW + 60));
        let passed = access.authorise(Action::Play, &name, &showing(&token), NOW).is_ok();
        prop_assert_eq!(passed, name == "live/a");
        for name in ["live%2fa", "live/%61", "live//a", "/live/a", "live/a/", "live/./a", "live/b/../a", "LIVE/a"] {
            prop_assert!(access.authorise(Action::Play, name, &showing(&token), NOW).is_err());
        }
    }

    #[test]
    fn any_text_is_answered(token in "\\PC{0,60}", host in "\\PC{0,20}", origin in "\\PC{0,20}") {
        let access = closed();
        let asker = Asker { token: Some(&token), host: Some(&host), origin: Some(&origin), ..at("127.0.0.1") };
        prop_assert!(access.authorise(Action::Play, "live/a", &asker, NOW).is_err());
        let local = rules(|_| {});
        let _ = local.authorise(Action::Publish, "live/a", &asker, NOW);
    }
}
