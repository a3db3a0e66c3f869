-- Times are Unix milliseconds; sequences and places are 64 bits wide. PostgreSQL gets its own migrations beside these.
CREATE TABLE devices (
  name          TEXT PRIMARY KEY,
  key           BLOB NOT NULL,
  state         TEXT NOT NULL CHECK (state IN ('lobby', 'accepted', 'removed')),
  labels        TEXT NOT NULL,
  token         TEXT,
  enrolled      INTEGER NOT NULL,
  changed       INTEGER NOT NULL,
  -- The newest status, by its place (epoch, counter), and what lists and counts need of it.
  status        TEXT,
  status_epoch  INTEGER NOT NULL DEFAULT 0,
  status_counter INTEGER NOT NULL DEFAULT 0,
  status_at     INTEGER,
  status_received INTEGER,
  phase         TEXT,
  sync          TEXT NOT NULL DEFAULT 'unknown',
  health        TEXT NOT NULL DEFAULT 'unknown',
  revision      TEXT,
  last_good     TEXT,
  last_seen     INTEGER,
  -- The unsigned hint that the broker keeps for a device: up or down.
  mqtt_link     TEXT,
  -- How far the device was told that its reports are stored, and in which word.
  acked_epoch   INTEGER,
  acked_counter INTEGER,
  ack_sequence  INTEGER NOT NULL DEFAULT 0,
  -- The last sequence of a command.
  sequence      INTEGER NOT NULL DEFAULT 0,
  -- Reports at or before this place were kept once and dropped by age.
  floor_epoch   INTEGER NOT NULL DEFAULT 0,
  floor_counter INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX devices_state ON devices (state, name);
CREATE INDEX devices_seen ON devices (state, last_seen);

CREATE TABLE tokens (
  id       TEXT PRIMARY KEY,
  hash     BLOB NOT NULL UNIQUE,
  uses     INTEGER,
  used     INTEGER NOT NULL DEFAULT 0,
  labels   TEXT NOT NULL,
  lobby    INTEGER NOT NULL,
  created  INTEGER NOT NULL,
  expires  INTEGER NOT NULL,
  revoked  INTEGER
) STRICT;

-- Every place that was stored: what makes sending twice harmless.
CREATE TABLE reports (
  device   TEXT NOT NULL,
  epoch    INTEGER NOT NULL,
  counter  INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  received INTEGER NOT NULL,
  kind     TEXT NOT NULL,
  body     TEXT,
  PRIMARY KEY (device, epoch, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX reports_received ON reports (received);
CREATE INDEX reports_shown ON reports (device, kind, at);

CREATE TABLE commands (
  device   TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  act      TEXT NOT NULL,
  jws      TEXT NOT NULL,
  issued   INTEGER NOT NULL,
  expires  INTEGER NOT NULL,
  sent     INTEGER,
  done     INTEGER,
  outcome  TEXT,
  message  TEXT,
  PRIMARY KEY (device, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX commands_open ON commands (expires) WHERE done IS NULL;

CREATE TABLE refusals (
  reason TEXT PRIMARY KEY,
  count  INTEGER NOT NULL,
  last   INTEGER NOT NULL,
  device TEXT
) STRICT;

CREATE TABLE deliveries (
  id       INTEGER PRIMARY KEY,
  kind     TEXT NOT NULL,
  received INTEGER NOT NULL,
  outcome  TEXT NOT NULL,
  branch   TEXT
) STRICT;
