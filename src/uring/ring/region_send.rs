//! Sends of region bytes, by the method that `send` chooses.

use std::os::fd::BorrowedFd;

use io_uring::{opcode, squeue};
use rustix::io::Errno;

use super::Uring;
use crate::uring::engine::{Event, FrameHead, Region, SendError, Sock};
use crate::uring::op::Op;
use crate::uring::send::{Message, SEND_FLAGS, Way};
use crate::uring::sockets::Target;

/// `RWF_NOWAIT`: the write does as much as it can now.
const RWF_NOWAIT: i32 = 0x8;
/// `IORING_SEND_ZC_REPORT_USAGE`: the second completion says whether the bytes were copied after all.
const REPORT_USAGE: u16 = 1 << 3;

impl Uring {
    pub(super) fn send_region(&mut self, sock: Sock, region: Region, from: u32, len: u32) {
        let slot = self.regions.get(region).and_then(|state| state.fixed);
        let way = self.chooser.choose(len, slot);
        if way == Way::Pages && self.send_pages(sock, region, from, len) {
            return;
        }
        let base = self.regions.begin_send(region, from, len);
        match way {
            Way::Copy | Way::Pages => {
                self.begin(sock, Op::SendRegion { sock, region }, |_, target| target.send(base, len));
            }
            Way::Fixed(slot) => self.begin(sock, Op::SendRegion { sock, region }, |_, target| {
                target.with(
                    |fd| opcode::WriteFixed::new(fd, base, len, slot).rw_flags(RWF_NOWAIT).build(),
                    |fd| opcode::WriteFixed::new(fd, base, len, slot).rw_flags(RWF_NOWAIT).build(),
                )
            }),
            Way::ZeroCopy(slot) => {
                let op = Op::SendZeroCopy { sock, region, taken: false };
                self.begin(sock, op, |_, target| zero_copy(target, base, len, slot));
            }
        }
    }

    /// Sends by reference to the memfd's pages, now; `false` where that cannot be done.
    fn send_pages(&mut self, sock: Sock, region: Region, from: u32, len: u32) -> bool {
        let Some(Target::Process(to)) = self.state(sock).map(|state| state.target()) else { return false };
        let segment = &self.regions.get(region).expect("a region is sent from while it is held").segment;
        let (memfd, start) = segment.file();
        let mut offset = start + u64::from(from);
        // SAFETY: the socket's own descriptor, which the table keeps open beyond this call.
        let to = unsafe { BorrowedFd::borrow_raw(to.0) };
        // From here on the socket refers to pages of the memfd; their bytes never change.
        let result = match rustix::fs::sendfile(to, memfd, Some(&mut offset), len as usize) {
            Ok(0) | Err(Errno::AGAIN) => Err(SendError::Full),
            Ok(taken) => Ok(u32::try_from(taken).expect("no more than was asked for")),
            Err(error) => Err(SendError::Broken(error)),
        };
        self.state(sock).expect("as found above").sending = false;
        self.events.push_back(Event::Sent { sock, result });
        true
    }

    pub(super) fn send_message(&mut self, sock: Sock, head: FrameHead, region: Region, from: u32, len: u32) {
        let base = self.regions.begin_send(region, from, len);
        let op = Op::SendMessage { sock, region, message: Message::new(head, base, len as usize) };
        self.begin(sock, op, |op, target| {
            let Op::SendMessage { message, .. } = op else { unreachable!("as made") };
            let header = message.header();
            let flags = SEND_FLAGS as u32;
            target.with(
                |fd| opcode::SendMsg::new(fd, header).flags(flags).build(),
                |fd| opcode::SendMsg::new(fd, header).flags(flags).build(),
            )
        });
    }
}

fn zero_copy(target: Target, base: *const u8, len: u32, slot: u16) -> squeue::Entry {
    let finish =
        |send: opcode::SendZc| send.buf_index(Some(slot)).flags(SEND_FLAGS).zc_flags(REPORT_USAGE).build();
    target.with(
        |fd| finish(opcode::SendZc::new(fd, base, len)),
        |fd| finish(opcode::SendZc::new(fd, base, len)),
    )
}
