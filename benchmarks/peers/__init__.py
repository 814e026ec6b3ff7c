"""The same endpoint as others would write it, and the limit of waitress and psycopg2."""
