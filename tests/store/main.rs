//! The store from outside: the life of images and containers, several processes at once, crashes at
//! any moment, full disks, damage. As root: layers hold devices and `trusted.*` attributes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this is test code: a surprise must stop the test, and the store is seen from outside"
)]

mod contention;
mod crash;
mod full;
mod killed;
mod life;
mod program;
mod repair;
mod resume;
mod samples;
mod space;
