-- A report is what was said, not only where: two agents with one key use the same places. Reports of before have no digest.
ALTER TABLE reports RENAME TO reports_of_places;
DROP INDEX reports_received;
DROP INDEX reports_shown;
CREATE TABLE reports (
  device   TEXT NOT NULL,
  epoch    INTEGER NOT NULL,
  counter  INTEGER NOT NULL,
  digest   TEXT NOT NULL DEFAULT '',
  at       INTEGER NOT NULL,
  received INTEGER NOT NULL,
  kind     TEXT NOT NULL,
  body     TEXT,
  -- The run of the agent that sent it.
  run      TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (device, epoch, counter, digest)
) STRICT, WITHOUT ROWID;
INSERT INTO reports (device, epoch, counter, at, received, kind, body)
  SELECT device, epoch, counter, at, received, kind, body FROM reports_of_places;
DROP TABLE reports_of_places;
CREATE INDEX reports_received ON reports (received);
CREATE INDEX reports_shown ON reports (device, kind, at);

-- Runs of a device's agent, by what they draw at their start ('' where an older agent draws nothing). Acknowledgements
-- are a run's own: one run must not forget what only the other has sent.
CREATE TABLE runs (
  device     TEXT NOT NULL,
  run        TEXT NOT NULL,
  machine    TEXT,
  first_seen INTEGER NOT NULL,
  last_seen  INTEGER NOT NULL,
  -- The sequence in which the device's acknowledgements stood when this run was first heard of: each has its own.
  began      INTEGER NOT NULL,
  -- The highest sequence that this run says it has heard. Above another run's beginning: both live.
  heard      INTEGER NOT NULL DEFAULT 0,
  acked_epoch   INTEGER,
  acked_counter INTEGER,
  PRIMARY KEY (device, run)
) STRICT, WITHOUT ROWID;
INSERT INTO runs (device, run, first_seen, last_seen, began, acked_epoch, acked_counter)
  SELECT name, '', coalesce(last_seen, enrolled), coalesce(last_seen, enrolled), 0, acked_epoch, acked_counter
  FROM devices WHERE acked_epoch IS NOT NULL;

-- Since when two runs are known to live with one key, and when the one that spoke less lately was heard.
ALTER TABLE devices ADD COLUMN twin_since INTEGER;
ALTER TABLE devices ADD COLUMN twin_seen INTEGER;
-- Whose status is shown.
ALTER TABLE devices ADD COLUMN status_run TEXT NOT NULL DEFAULT '';
-- What lies at or before the floor and was made before this was kept once.
ALTER TABLE devices ADD COLUMN floor_at INTEGER NOT NULL DEFAULT 0;
-- The highest place that was ever heard of.
ALTER TABLE devices ADD COLUMN known_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN known_counter INTEGER NOT NULL DEFAULT 0;
UPDATE devices SET (known_epoch, known_counter) =
  (SELECT epoch, counter FROM reports WHERE device = devices.name ORDER BY epoch DESC, counter DESC LIMIT 1)
  WHERE EXISTS (SELECT 1 FROM reports WHERE device = devices.name);
