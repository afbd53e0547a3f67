//! The extended attributes that overlay formats write on objects: their names, their encoding, and
//! what a user may see of them. Pure functions over bytes; the only place that knows a mark's name.
