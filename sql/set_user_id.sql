-- name: set_user_id
-- Sets the doctor whose cases this transaction can see (subject: a UUID). See roles.sql.
SET LOCAL medmitra.user_id = %(subject)s
