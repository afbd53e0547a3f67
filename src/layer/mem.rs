//! A tree in memory, as a layer.
