-- name: select_is_superuser
-- Whether the current role is a superuser.
SELECT rolsuper FROM pg_roles WHERE rolname = current_user
