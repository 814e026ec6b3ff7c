-- name: sees_other_doctors
-- Whether this transaction can see a case of another doctor (user_id: a UUID) than the one that set_user_id.sql sets.
SELECT EXISTS (SELECT id FROM medmitra.cases WHERE user_id <> %(user_id)s::uuid LIMIT 1)
