-- name: set_user_id
-- Lets this role see the cases of one doctor (subject: a UUID) until the transaction ends. See roles.sql.
SET LOCAL medmitra.user_id = %(subject)s
