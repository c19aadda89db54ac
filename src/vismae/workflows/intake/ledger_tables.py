"""The tables of a ledger (SQLite)."""

TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, source INTEGER NOT NULL, name BLOB NOT NULL UNIQUE,
    path BLOB NOT NULL, member BLOB, size INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    row TEXT NOT NULL, volume TEXT,
    state TEXT NOT NULL,
    kind TEXT, patient TEXT, study TEXT, series TEXT, instance TEXT,
    frames INTEGER, pixel_bytes INTEGER,
    item INTEGER, place INTEGER, copy INTEGER NOT NULL DEFAULT 0, frame_of_reference TEXT
);
CREATE INDEX entry_state ON entry (state, id);
CREATE INDEX entry_item ON entry (item, place);
CREATE INDEX entry_series ON entry (series);
CREATE TABLE label_object (
    entry INTEGER PRIMARY KEY, series TEXT NOT NULL, instances TEXT NOT NULL,
    frame_of_reference TEXT, structures TEXT NOT NULL
);
CREATE TABLE label_item (item INTEGER NOT NULL, entry INTEGER NOT NULL);
CREATE INDEX label_item_item ON label_item (item);
CREATE TABLE structure (name TEXT PRIMARY KEY, value INTEGER);
CREATE TABLE portion (
    id INTEGER PRIMARY KEY, first_item INTEGER NOT NULL, last_item INTEGER NOT NULL,
    pixel_bytes INTEGER NOT NULL, skipped TEXT NOT NULL DEFAULT '[]', result TEXT
);
CREATE TABLE image (image_id TEXT NOT NULL, entry INTEGER NOT NULL);
CREATE TABLE rejected (
    entry INTEGER, path BLOB NOT NULL, reason TEXT NOT NULL, message BLOB NOT NULL
);
CREATE INDEX rejected_entry ON rejected (entry);
CREATE INDEX entry_instance ON entry (instance);
CREATE TABLE stored_before (entry INTEGER PRIMARY KEY, earlier INTEGER NOT NULL);
"""
"""Of a ledger that is begun."""

LATER_TABLES = """
CREATE TABLE IF NOT EXISTS concatenation (entry INTEGER PRIMARY KEY, uid TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS naming_label_map (entry INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS unused_label_map (
    entry INTEGER NOT NULL, path BLOB NOT NULL, reason TEXT NOT NULL, message BLOB NOT NULL
);
"""
"""Of any ledger: it may have been begun before they were known. Few files have a row in them."""
