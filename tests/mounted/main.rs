//! plyfs mounted for real, by its own command, and used through the kernel. Needs root and
//! /dev/fuse. Every test named `line_NN_...` is about that line of docs/SEMANTICS.md.

#![allow(clippy::disallowed_methods, reason = "tests look at layers from outside, by path")]

mod containers;
mod data;
mod directories;
mod identity;
mod metadata;
mod stand;
