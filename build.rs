//! Builds again when a page comes or goes: the macro that embeds them tells cargo only of those it has seen.

fn main() {
    println!("cargo:rerun-if-changed=web");
}
