//! A layer that fails or stops at the n-th change.
