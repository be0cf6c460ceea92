//! The engine: sockets on io_uring. It knows nothing of media.
//!
//! [`Engine`] is the interface: the program runs on [`ring::Uring`], the simulation on a seeded replacement.
//! The engine owns every buffer and descriptor from the submission of an operation until its last completion;
//! its user has only names ([`Sock`], [`Region`]) that may become stale without harm. [`Engine`] lists the
//! rules that its implementations keep.
//!
//! `engine` is the interface for a loop; `ring` implements it on a real ring, with one file of `ring/` for each
//! concern, using parts that know nothing of each other: `sockets`, `files`, `regions`, `send`, `buffers`,
//! `op`.

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
pub mod workers;

pub use clock::Millis;
pub use engine::{
    Engine, Event, FRAME_HEAD_MAX, FrameHead, Payload, ReceiveBuffers, Region, SendError, Sock,
};
