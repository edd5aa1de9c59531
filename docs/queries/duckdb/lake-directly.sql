-- The lake itself, without an export: JSON lines, doubles dropped by id and the
-- highest rev. Good for a look at a small lake; an export is faster to query.
WITH records AS (
    SELECT * FROM read_json('*.jsonl', format = 'newline_delimited', ignore_errors = true,
        columns = {id: 'VARCHAR', rev: 'BIGINT', kind: 'VARCHAR', product_id: 'VARCHAR', cost_nano_usd: 'BIGINT'})
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY rev DESC) = 1
)
SELECT product_id, count(*) AS records, sum(cost_nano_usd)::BIGINT AS cost_nano_usd
FROM records
WHERE kind IN ('request', 'update', 'write_off')
GROUP BY product_id
ORDER BY product_id;
