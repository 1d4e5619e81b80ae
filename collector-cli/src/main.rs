//! The collector command.
fn main() {}
