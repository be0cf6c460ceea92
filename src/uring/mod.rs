//! The engine: sockets on io_uring. It knows nothing of media.
//!
//! [`Engine`] is the seam: the program runs on [`ring::Uring`], the simulation on a seeded stand-in. The
//! engine owns every buffer and descriptor from the submission of an operation until its last completion;
//! its user holds only names ([`Sock`], [`Region`]) that go stale without harm. [`Engine`] says which rules its
//! implementations keep.
//!
//! `engine` is what a loop asks and is told; `ring` is that on a real ring, one file of `ring/` for one concern, on
//! parts that know nothing of each other: `sockets`, `files`, `regions`, `send`, `buffers`, `op`.

mod buffers;
mod clock;
mod engine;
pub mod files;
pub mod kernels;
pub mod limits;
pub mod mailbox;
mod op;
pub mod probe;
mod refusals;
mod regions;
pub mod ring;
pub mod send;
pub mod setup;
mod slab;
pub mod sockets;

pub use clock::Millis;
pub use engine::{
    Engine, Event, FRAME_HEAD_MAX, FrameHead, Payload, ReceiveBuffers, Region, SendError, Sock,
};
