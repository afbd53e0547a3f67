//! Samples made by other hands.
