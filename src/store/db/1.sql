-- One layer over certain others: a directory trees/CHAIN.
CREATE TABLE layers (
    chain   TEXT PRIMARY KEY,                   -- 64 hexadecimal digits
    parent  TEXT REFERENCES layers (chain),     -- the chain below; null for the lowest layer
    diff    TEXT NOT NULL,                      -- digest of the uncompressed tar
    size    INTEGER NOT NULL,                   -- bytes of the uncompressed tar
    opaque  INTEGER NOT NULL,                   -- its root hides all that lies below
    census  TEXT NOT NULL,                      -- digest of the tree less the contents of files
    damaged INTEGER NOT NULL DEFAULT 0          -- a check found it bad: an import replaces it
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_parent ON layers (parent);

CREATE TABLE images (
    id       TEXT PRIMARY KEY,                  -- digest of the config
    manifest BLOB,                              -- null if its source had none (docker save)
    config   BLOB NOT NULL,
    top      TEXT REFERENCES layers (chain),    -- null for an image without layers
    imported INTEGER NOT NULL                   -- seconds since 1970
) STRICT, WITHOUT ROWID;
CREATE INDEX images_top ON images (top);

CREATE TABLE names (
    name  TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_image ON names (image);

-- A directory snapshots/ID. An id is never used twice.
CREATE TABLE containers (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT NOT NULL UNIQUE,
    image     TEXT NOT NULL REFERENCES images (id),
    created   INTEGER NOT NULL,                 -- seconds since 1970
    ephemeral INTEGER NOT NULL                  -- goes when nobody uses it any more
) STRICT;
CREATE INDEX containers_image ON containers (image);
