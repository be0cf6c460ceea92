#!/usr/bin/env bash
# Makes clip.flv, the ten seconds that `uringcast demo` loops: a test card with a running clock and a tone.
#
# Looped every 10,000 ms: 250 frames at 25 fps are 10.000 s of video, 431 AAC frames (including the encoder's
# first, silent one) are 10.008 s of audio, so that a loop joins to within one audio frame (23 ms).
# Five GOPs of 2 s, no B-frames, no scene-cut keyframes.
set -euo pipefail
cd "$(dirname "$0")"
font=${FONT:-$(fc-match -f '%{file}' 'DejaVu Sans Mono')}

ffmpeg -hide_banner -loglevel error -y -fflags +bitexact \
  -f lavfi -i "testsrc2=size=640x360:rate=25:duration=10" \
  -f lavfi -i "sine=frequency=440:beep_factor=2:sample_rate=44100:duration=9.98" \
  -vf "boxblur=1:1,drawbox=x=170:y=140:w=300:h=80:color=black@0.75:t=fill,\
drawtext=fontfile=$font:text='%{pts\:hms}':fontsize=36:fontcolor=white:x=(w-tw)/2:y=150,\
drawtext=fontfile=$font:text='uringcast demo':fontsize=18:fontcolor=0x9fd8ff:x=(w-tw)/2:y=192" \
  -c:v libx264 -profile:v main -preset veryslow -pix_fmt yuv420p -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 \
  -b:v 220k -maxrate 300k -bufsize 300k -x264-params threads=1 \
  -af "volume=0.25" -c:a aac -b:a 48k -ac 1 \
  -flags:v +bitexact -flags:a +bitexact -map_metadata -1 \
  -flvflags no_duration_filesize -f flv clip.flv
ls -l clip.flv
