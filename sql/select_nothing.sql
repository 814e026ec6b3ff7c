-- name: select_nothing
-- No case; fails where cases could not be read. Costs a look into the catalogue and reads no row.
SELECT case_id FROM medmitra.cases LIMIT 0
