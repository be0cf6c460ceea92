//! The `uringcast` program.
fn main() {}
