//! A directory in overlay format, as a layer.
