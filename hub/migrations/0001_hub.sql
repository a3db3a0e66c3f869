-- Times are Unix milliseconds, sequences and positions 64-bit: the same in PostgreSQL.
CREATE TABLE devices (
  name          TEXT PRIMARY KEY,
  key           BLOB NOT NULL,
  state         TEXT NOT NULL CHECK (state IN ('lobby', 'accepted', 'removed')),
  labels        TEXT NOT NULL,
  token         TEXT,
  enrolled      BIGINT NOT NULL,
  changed       BIGINT NOT NULL,
  -- The newest status, by its place (epoch, counter), and what lists and counts need of it.
  epoch         BIGINT NOT NULL DEFAULT 0,
  counter       BIGINT NOT NULL DEFAULT 0,
  status        TEXT,
  status_epoch  BIGINT NOT NULL DEFAULT 0,
  status_counter BIGINT NOT NULL DEFAULT 0,
  status_at     BIGINT,
  status_received BIGINT,
  phase         TEXT,
  sync          TEXT NOT NULL DEFAULT 'unknown',
  health        TEXT NOT NULL DEFAULT 'unknown',
  revision      TEXT,
  last_good     TEXT,
  last_seen     BIGINT,
  -- The unsigned hint that the broker keeps for a device: up or down.
  mqtt_link     TEXT,
  -- The last sequence of a command.
  sequence      BIGINT NOT NULL DEFAULT 0,
  -- Reports at or before this place were kept once and dropped by age.
  floor_epoch   BIGINT NOT NULL DEFAULT 0,
  floor_counter BIGINT NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX devices_state ON devices (state, name);
CREATE INDEX devices_seen ON devices (state, last_seen);

CREATE TABLE tokens (
  id       TEXT PRIMARY KEY,
  hash     BLOB NOT NULL UNIQUE,
  uses     BIGINT,
  used     BIGINT NOT NULL DEFAULT 0,
  labels   TEXT NOT NULL,
  lobby    BIGINT NOT NULL,
  created  BIGINT NOT NULL,
  expires  BIGINT NOT NULL,
  revoked  BIGINT
) STRICT;

-- Every place that was stored: what makes sending twice harmless.
CREATE TABLE reports (
  device   TEXT NOT NULL,
  epoch    BIGINT NOT NULL,
  counter  BIGINT NOT NULL,
  at       BIGINT NOT NULL,
  received BIGINT NOT NULL,
  kind     TEXT NOT NULL,
  body     TEXT,
  PRIMARY KEY (device, epoch, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX reports_received ON reports (received);
CREATE INDEX reports_shown ON reports (device, kind, at);

CREATE TABLE commands (
  device   TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  act      TEXT NOT NULL,
  jws      TEXT NOT NULL,
  issued   BIGINT NOT NULL,
  expires  BIGINT NOT NULL,
  sent     BIGINT,
  done     BIGINT,
  outcome  TEXT,
  message  TEXT,
  PRIMARY KEY (device, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX commands_open ON commands (expires) WHERE done IS NULL;

CREATE TABLE refusals (
  reason TEXT PRIMARY KEY,
  count  BIGINT NOT NULL,
  last   BIGINT NOT NULL,
  device TEXT
) STRICT;

CREATE TABLE deliveries (
  id       INTEGER PRIMARY KEY,
  kind     TEXT NOT NULL,
  received BIGINT NOT NULL,
  outcome  TEXT NOT NULL,
  branch   TEXT
) STRICT;
