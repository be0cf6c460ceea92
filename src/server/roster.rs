//! Lists viewers and disconnects one of them: what the control thread asks of the loops for an operator.
//!
//! Each request goes through the loops' mailboxes and carries a channel for the answer. A loop reads its tables
//! when it handles the request; nothing is kept for it in between, and the path of tags is not affected.

use tokio::sync::oneshot;

use super::shared::{Message, Shared};
pub use super::viewers::listing::{BadName, Entry, Kick, LIMIT_MAX, Query, ViewerList, ViewerName};
use crate::live::stream::Stream;

/// Asks every loop for its viewers.
pub fn ask(shared: &Shared, query: &Query) -> Vec<oneshot::Receiver<ViewerList>> {
    let ask = |post: &crate::uring::mailbox::Postbox<Message>| {
        let (reply, answer) = oneshot::channel();
        post.post(Message::Viewers(query.clone(), reply));
        answer
    };
    shared.posts.iter().map(ask).collect()
}

/// Asks for a viewer to be disconnected; `None`: the name is from another run of the program.
pub fn kick(shared: &Shared, name: ViewerName) -> Option<oneshot::Receiver<Kick>> {
    let post = shared.posts.get(name.index).filter(|_| name.run == shared.run)?;
    let (reply, answer) = oneshot::channel();
    post.post(Message::Kick(name.sock, reply));
    Some(answer)
}

/// Asks for a stream's publisher to be ended: each loop answers whether it was one of its own.
pub fn kick_publisher(shared: &Shared, stream: &Stream) -> Vec<oneshot::Receiver<bool>> {
    let ask = |post: &crate::uring::mailbox::Postbox<Message>| {
        let (reply, answer) = oneshot::channel();
        post.post(Message::KickPublisher(stream.id, reply));
        answer
    };
    shared.posts.iter().map(ask).collect()
}
