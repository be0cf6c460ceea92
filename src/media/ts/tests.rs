use bytes::Bytes;

use super::*;

fn tracks() -> Tracks {
    let video = h264::parse_config(&Bytes::from_static(h264::tests::AVCC)).unwrap();
    let audio = aac::parse_config(&Bytes::from_static(&[0x12, 0x10])).unwrap();
    Tracks { video: Some(Arc::new(video)), audio: Some(Arc::new(audio)) }
}

/// The elementary bytes of each PES packet of `pid`, reassembled packet by packet.
fn pes(ts: &[u8], pid: u16) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut counter = None;
    for packet in ts.chunks(PACKET) {
        assert_eq!((packet.len(), packet[0]), (PACKET, 0x47));
        if u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) != pid {
            continue;
        }
        let count = packet[3] & 15;
        if packet[3] & 0x10 == 0 {
            assert_eq!((counter, packet[4]), (Some(count), 183), "a packet without payload is not counted");
            continue;
        }
        assert!(counter.is_none_or(|last| (last + 1) & 15 == count), "a continuity counter jumps");
        counter = Some(count);
        let field = if packet[3] & 0x20 == 0 { 0 } else { usize::from(packet[4]) + 1 };
        let payload = &packet[4 + field..];
        assert!(!payload.is_empty());
        if packet[1] & 0x40 != 0 {
            packets.push(Vec::new());
        }
        packets.last_mut().expect("begins with a start").extend_from_slice(payload);
    }
    for packet in &mut packets {
        assert_eq!(packet[..3], [0, 0, 1]);
        let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        assert!(length == 0 || length + 6 == packet.len());
        packet.drain(..9 + usize::from(packet[8]));
    }
    packets
}

#[test]
fn frames_of_every_length_come_out_whole() {
    let mut muxer = TsMuxer::default();
    muxer.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
    let mut want = Vec::new();
    for len in 1..800u16 {
        let unit: Vec<u8> = (0..len).map(|n| (n % 251) as u8 | 1).collect();
        let mut frame = vec![0, 0];
        frame.extend(len.to_be_bytes());
        frame.extend(&unit);
        let cts = if len % 2 == 0 { 80 } else { 0 };
        muxer.sample(&Sample {
            video: true,
            dts: i64::from(len) * 40,
            cts,
            key: false,
            place: Place::Begins,
            data: &frame,
        });
        want.push([&[0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1][..], &unit].concat());
    }
    muxer.close(0);
    assert_eq!(muxer.broken, 0);
    let got = pes(&muxer.out, PID_VIDEO);
    // Units of the delimiter's type are replaced by our own delimiter.
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(&want).all(|(got, want)| got == want || want[10] & 0x1f == 9));
}

#[test]
fn sound_comes_out_whole_and_keyframes_bring_parameter_sets() {
    let mut muxer = TsMuxer::default();
    muxer.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
    let mut want = Vec::new();
    for n in 0..500usize {
        let frame = vec![7; n + 1];
        let dts = i64::try_from(n * 1024 * 1000 / 44_100).unwrap();
        muxer.sample(&Sample { video: false, dts, cts: 0, key: true, place: Place::Begins, data: &frame });
        want.extend(Adts::new(&[0x12, 0x10]).unwrap().header(frame.len()));
        want.extend(frame);
    }
    muxer.sample(&Sample {
        video: true,
        dts: 0,
        cts: 0,
        key: true,
        place: Place::Begins,
        data: &[0, 0, 0, 2, 0x65, 1],
    });
    muxer.close(0);
    assert_eq!(pes(&muxer.out, PID_AUDIO).concat(), want);
    let picture = pes(&muxer.out, PID_VIDEO).concat();
    let types: Vec<u8> = picture.windows(5).filter(|w| w[..4] == [0, 0, 0, 1]).map(|w| w[4] & 31).collect();
    assert_eq!(types, [9, 7, 8, 5]);
}

/// The clock's base in each packet of `pid` that has one.
fn clocks(ts: &[u8], pid: u16) -> Vec<i64> {
    let with_clock = |packet: &&[u8]| {
        let own = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) == pid;
        own && packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x10 != 0
    };
    let base = |packet: &[u8]| i64::from(u32::from_be_bytes(*packet[6..].first_chunk().unwrap())) * 2;
    ts.chunks(PACKET).filter(with_clock).map(base).collect()
}

#[test]
fn the_clock_is_sent_every_tenth_of_a_second_even_if_frames_are_rare() {
    for (picture, sound) in [(true, false), (true, true), (false, true)] {
        let mut tracks = tracks();
        tracks.video.take_if(|_| !picture);
        tracks.audio.take_if(|_| !sound);
        let pid = if picture { PID_VIDEO } else { PID_AUDIO };
        let mut muxer = TsMuxer::default();
        muxer.open(&Opening { tracks, fresh: true, start: 0 });
        let mut frames = 0;
        for n in 0..300 {
            let dts = n * 1024 * 1000 / 44_100;
            if sound {
                muxer.sample(&Sample {
                    video: false,
                    dts,
                    cts: 0,
                    key: true,
                    place: Place::Begins,
                    data: &[7; 200],
                });
                frames += 1;
            }
            if picture && n % 22 == 0 {
                muxer.sample(&Sample {
                    video: true,
                    dts,
                    cts: 0,
                    key: n == 0,
                    place: Place::Begins,
                    data: &[0, 0, 0, 2, 0x65, 1],
                });
            }
        }
        muxer.close(7_000);
        let clocks = clocks(&muxer.out, pid);
        assert!(clocks.len() > 60, "{picture} {sound}: {}", clocks.len());
        assert!(clocks.windows(2).all(|two| (1..=9_000).contains(&(two[1] - two[0]))), "{clocks:?}");
        assert_eq!(pes(&muxer.out, PID_AUDIO).concat().len(), frames * 207);
    }
}

#[test]
fn a_pause_of_the_stream_is_not_filled() {
    let mut muxer = TsMuxer::default();
    muxer.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
    for dts in [0, 3_600_000] {
        muxer.sample(&Sample {
            video: true,
            dts,
            cts: 0,
            key: true,
            place: Place::Begins,
            data: &[0, 0, 0, 2, 0x65, 1],
        });
    }
    muxer.close(3_600_040);
    assert_eq!(clocks(&muxer.out, PID_VIDEO).len(), 2);
}

#[test]
fn a_truncated_frame_is_left_out_and_counted() {
    let mut muxer = TsMuxer::default();
    muxer.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
    let before = muxer.out.len();
    muxer.sample(&Sample {
        video: true,
        dts: 0,
        cts: 0,
        key: true,
        place: Place::Begins,
        data: &[0, 0, 0, 9, 0x65, 1],
    });
    assert_eq!((muxer.out.len(), muxer.broken), (before, 1));
}

#[test]
fn a_picture_in_several_tags_is_one_access_unit() {
    let mut muxer = TsMuxer::default();
    muxer.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
    let sample = |dts, place, data| Sample { video: true, dts, cts: 0, key: dts == 0, place, data };
    let sound = Sample { video: false, dts: 30, cts: 0, key: true, place: Place::Begins, data: &[7; 200] };
    muxer.sample(&sample(0, Place::Begins, &[0, 0, 0, 2, 0x65, 0x80]));
    muxer.sample(&sound);
    muxer.sample(&sample(0, Place::Continues, &[0, 0, 0, 2, 0x65, 0x40]));
    muxer.sample(&sample(40, Place::Begins, &[0, 0, 0, 2, 0x41, 0x80]));
    muxer.sample(&sample(40, Place::Continues, &[0, 0, 0, 9, 0x41, 0x40]));
    muxer.close(80);
    let units: Vec<Vec<u8>> = pes(&muxer.out, PID_VIDEO)
        .iter()
        .map(|data| data.windows(5).filter(|w| w[..4] == [0, 0, 0, 1]).map(|w| w[4]).collect())
        .collect();
    assert_eq!(units, [vec![9, 0x67, 0x68, 0x65, 0x65], vec![9, 0x41]]);
    assert_eq!(muxer.broken, 1, "the slice that is truncated");
}

/// Channels that ADTS has no number for stand in front of the first frame of each packet.
#[test]
fn a_program_config_element_comes_with_the_sound() {
    let record = Bytes::from_static(aac::tests::SIDE);
    let audio = aac::parse_config(&record).map(Arc::new);
    let mut muxer = TsMuxer::default();
    muxer.open(&Opening { tracks: Tracks { video: None, audio }, fresh: true, start: 0 });
    for n in 0..40 {
        let dts = n * 1024 / 48;
        muxer.sample(&Sample { video: false, dts, cts: 0, key: true, place: Place::Begins, data: &[7; 500] });
    }
    muxer.close(1_000);
    let adts = Adts::new(&record).unwrap();
    let want = [&adts.header(adts.program().len() + 500)[..], adts.program()].concat();
    let got = pes(&muxer.out, PID_AUDIO);
    assert!(got.len() > 5 && got.iter().all(|packet| packet.starts_with(&want)));
    assert_eq!(want[2] & 1 | want[3] & 0xc0, 0, "configuration 0");
}

#[test]
fn only_existing_streams_are_declared() {
    for (video, audio) in [(true, false), (false, true), (true, true)] {
        let mut tracks = tracks();
        tracks.video.take_if(|_| !video);
        tracks.audio.take_if(|_| !audio);
        let mut muxer = TsMuxer::default();
        muxer.open(&Opening { tracks, fresh: true, start: 0 });
        let map = &muxer.out[PACKET + 5..];
        let streams = (usize::from(map[2]) - 13) / 5;
        assert_eq!(streams, usize::from(video) + usize::from(audio));
        assert_eq!(map[9], if video { 0 } else { 1 }, "the clock is where there are frames");
    }
}

#[test]
fn early_sound_does_not_take_over_the_clock() {
    for lead in [0i64, 60, 200, 800] {
        let mut muxer = TsMuxer::default();
        muxer.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
        for n in 0..500i64 {
            let sound = Sample {
                video: false,
                dts: lead + n * 20,
                cts: 0,
                key: true,
                place: Place::Begins,
                data: &[7; 200],
            };
            muxer.sample(&sound);
            if n % 2 == 0 {
                let (dts, key) = (n * 20, n % 100 == 0);
                muxer.sample(&Sample {
                    video: true,
                    dts,
                    cts: 0,
                    key,
                    place: Place::Begins,
                    data: &[0, 0, 0, 2, 0x65, 1],
                });
            }
        }
        muxer.close(10_000);
        // Each picture has its clock: none was told before.
        let clocks = clocks(&muxer.out, PID_VIDEO);
        for n in 0..250 {
            assert!(clocks.contains(&(n * 40 * TICKS + BASE - DELAY)), "lead {lead}, {} ms", n * 40);
        }
    }
}
