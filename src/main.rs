//! The plyfs program.
fn main() {}
