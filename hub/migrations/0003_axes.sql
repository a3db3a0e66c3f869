-- Counts of the fleet by its axes read an index alone: in the table these columns lie behind the status, which is long.
DROP INDEX devices_seen;
CREATE INDEX devices_axes ON devices (state, last_seen, twin_seen, phase, sync, health, revision);
-- A key is one device's.
CREATE INDEX devices_key ON devices (key);
-- Those that were copied are few.
CREATE INDEX devices_copied ON devices (state, name) WHERE twin_seen IS NOT NULL;
