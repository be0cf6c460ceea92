//! What a stream consists of. Pure: no sockets, no clock, no other module of the crate.

pub mod aac;
pub mod amf0;
pub mod av1;
pub mod bits;
pub mod codec;
mod cutting;
pub mod encoding;
pub mod flv;
pub mod flv_index;
pub mod h264;
pub mod h265;
pub mod m3u8;
pub mod metadata;
pub mod mp4;
pub mod mpeg_audio;
pub mod nal;
pub mod opus;
pub mod packet;
pub mod picture;
pub mod remux;
pub mod sample_clock;
pub mod segmenter;
pub mod tag;
pub mod track;
pub mod track_facts;
pub mod ts;
