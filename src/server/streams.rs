//! What a loop knows of streams that are published and watched on it.

use super::publishers::claim::Publishers;
use super::viewers::audience::Viewers;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) publishers: Publishers,
    pub(super) viewers: Viewers,
}
