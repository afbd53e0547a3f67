//! plyfs mounted for real, by its own command, and used through the kernel. Needs root and
//! /dev/fuse. Every test named `line_NN_...` is about that line of docs/SEMANTICS.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

mod alike;
mod containers;
mod data;
mod directories;
mod faults;
mod identity;
mod killed;
mod life;
mod merging;
mod metacopy;
mod metadata;
mod only;
mod options;
mod owners;
mod panics;
mod served;
mod stand;
mod unprivileged;
