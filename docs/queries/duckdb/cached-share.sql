-- How much of the prompts came out of the cache, in parts per million.
-- A count that was not reported is null, not zero: such records do not count.
SELECT model,
       count(*)                                                  AS records,
       sum(prompt_tokens)::BIGINT                                AS prompt_tokens,
       sum(cached_tokens)::BIGINT                                AS cached_tokens,
       (sum(cached_tokens) * 1000000 // nullif(sum(prompt_tokens), 0))::BIGINT AS cached_ppm
FROM read_parquet('usage.parquet')
WHERE kind = 'request' AND prompt_tokens IS NOT NULL AND cached_tokens IS NOT NULL
GROUP BY model
ORDER BY model;
