-- name: set_time_format
-- Sets the format of the times that this transaction reads. Without it, a changed setting of the server, the database
-- or the role would change them. A column without time zone contains UTC.
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO'
