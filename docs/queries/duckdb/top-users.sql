-- The twenty users that cost most, of all products. A user is what the request
-- said in `user`; the rest is in the row without a name.
SELECT product_id, "user",
       count(*)                                                  AS records,
       sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))::BIGINT AS tokens,
       sum(cost_nano_usd)::BIGINT                                AS cost_nano_usd
FROM read_parquet('usage.parquet')
WHERE kind IN ('request', 'update', 'write_off')
GROUP BY product_id, "user"
ORDER BY cost_nano_usd DESC NULLS LAST, product_id, "user"
LIMIT 20;
