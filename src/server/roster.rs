//! Who watches, and letting one go: what the control thread asks of the loops for an operator.
//!
//! Each question goes through the loops' mailboxes with a place for the answer. A loop looks at its tables when
//! it comes to the question; nothing is kept for it, and nothing on the way of tags knows of it.

use tokio::sync::oneshot;

use super::shared::{Message, Shared};
pub use super::viewers::listing::{BadName, Entry, Kick, LIMIT_MAX, Query, ViewerList, ViewerName};
use crate::live::stream::Stream;

/// Asks every loop who watches.
pub fn ask(shared: &Shared, query: &Query) -> Vec<oneshot::Receiver<ViewerList>> {
    let ask = |post: &crate::uring::mailbox::Postbox<Message>| {
        let (reply, answer) = oneshot::channel();
        post.post(Message::Viewers(query.clone(), reply));
        answer
    };
    shared.posts.iter().map(ask).collect()
}

/// Wants a viewer gone; `None`: it is of another run of the program.
pub fn kick(shared: &Shared, name: ViewerName) -> Option<oneshot::Receiver<Kick>> {
    let post = shared.posts.get(name.index).filter(|_| name.run == shared.run)?;
    let (reply, answer) = oneshot::channel();
    post.post(Message::Kick(name.sock, reply));
    Some(answer)
}

/// Wants a stream's publisher gone: each loop says whether it was one of its own.
pub fn kick_publisher(shared: &Shared, stream: &Stream) -> Vec<oneshot::Receiver<bool>> {
    let ask = |post: &crate::uring::mailbox::Postbox<Message>| {
        let (reply, answer) = oneshot::channel();
        post.post(Message::KickPublisher(stream.id, reply));
        answer
    };
    shared.posts.iter().map(ask).collect()
}
