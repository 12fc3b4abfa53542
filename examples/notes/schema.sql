-- A batch is one import. Its notes refer to it, so a note that were written
-- after its import was rolled back would break a foreign key.
CREATE TABLE IF NOT EXISTS batches (
	id      INTEGER PRIMARY KEY,
	created INTEGER NOT NULL DEFAULT (unixepoch())
);

CREATE TABLE IF NOT EXISTS notes (
	id      INTEGER PRIMARY KEY,
	title   TEXT NOT NULL,
	body    TEXT NOT NULL DEFAULT '',
	url     TEXT NOT NULL DEFAULT '',
	batch   INTEGER REFERENCES batches (id),
	created INTEGER NOT NULL DEFAULT (unixepoch())
);

-- Each tag is described once, when it is first used.
CREATE TABLE IF NOT EXISTS tags (
	name  TEXT PRIMARY KEY,
	about TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS note_tags (
	note INTEGER NOT NULL REFERENCES notes (id) ON DELETE CASCADE,
	tag  TEXT NOT NULL REFERENCES tags (name),
	PRIMARY KEY (note, tag)
);

CREATE INDEX IF NOT EXISTS note_tags_by_tag ON note_tags (tag);
