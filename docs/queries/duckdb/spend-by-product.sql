-- What each product cost, by budget period. Amounts are integers of nano-USD;
-- the last column is the same in dollars, as an exact decimal.
-- Reads: usage.parquet, of `gateway lake export -format parquet`.
SELECT product_id,
       max(product)                                              AS product,
       period,
       count(*)                                                  AS records,
       sum(cost_nano_usd)::BIGINT                                AS cost_nano_usd,
       sum(list_cost_nano_usd)::BIGINT                           AS list_cost_nano_usd,
       (sum(cost_nano_usd)::DECIMAL(38, 9) * 0.000000001::DECIMAL(10, 9))::DECIMAL(38, 9) AS cost_usd
FROM read_parquet('usage.parquet')
WHERE kind IN ('request', 'update', 'write_off')
GROUP BY product_id, period
ORDER BY cost_nano_usd DESC, product_id, period;
