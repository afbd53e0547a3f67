//! What tests, fuzz targets and suites share: operations as programs do them, the one definition of
//! correct, and trees to begin with.
//!
//! ```text
//!     Op (random, on what exists) -- resolved against the Model --> Op (on paths)
//!     Op on paths -- applied to --> Model, Union, a directory of the system: each a Target
//!     Target -- tree() --> Vec<Seen> -- render() --> text that can be compared
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::many_single_char_names,
    clippy::match_same_arms,
    clippy::format_push_string,
    reason = "this is test code: a surprise must stop the test"
)]

pub mod archive;
pub mod documents;
pub mod hook;
pub mod in_memory;
pub mod listing;
pub mod model;
pub mod op;
pub mod place;
pub mod run;
pub mod system;
pub mod tree;
pub mod union_target;
pub mod unpacking;

pub use model::Model;
pub use op::{At, Op};
pub use place::Place;
pub use run::{Outcome, Target};
pub use tree::{Seen, TreeSpec};
