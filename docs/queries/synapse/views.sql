-- Synapse serverless SQL (or Fabric's SQL endpoint) on exported Parquet. It reads
-- Parquet, not Avro: export first, with -partition day, and upload the folder.
-- Replace the storage account and the container.
CREATE EXTERNAL DATA SOURCE CostgateLake WITH (LOCATION = 'https://account.dfs.core.windows.net/container');
GO
CREATE VIEW dbo.Usage AS
SELECT r.*, CAST(r.filepath(1) AS date) AS day -- of the folder: a filter on it reads only those folders
FROM OPENROWSET(BULK 'usage/day=*/usage.parquet', DATA_SOURCE = 'CostgateLake', FORMAT = 'PARQUET') WITH (
    id varchar(36) COLLATE Latin1_General_100_BIN2_UTF8, rev bigint, kind varchar(16) COLLATE Latin1_General_100_BIN2_UTF8,
    [time] datetime2(3), period varchar(16) COLLATE Latin1_General_100_BIN2_UTF8, product_id varchar(64) COLLATE Latin1_General_100_BIN2_UTF8,
    product nvarchar(400), deployment varchar(128) COLLATE Latin1_General_100_BIN2_UTF8, model varchar(128) COLLATE Latin1_General_100_BIN2_UTF8,
    sku varchar(64) COLLATE Latin1_General_100_BIN2_UTF8, service_tier varchar(64) COLLATE Latin1_General_100_BIN2_UTF8,
    usage_source varchar(16) COLLATE Latin1_General_100_BIN2_UTF8, prompt_tokens bigint, cached_tokens bigint, completion_tokens bigint,
    cost_nano_usd bigint, list_cost_nano_usd bigint, [user] nvarchar(400)
) AS r;
GO
CREATE VIEW dbo.Spending AS SELECT * FROM dbo.Usage WHERE kind IN ('request', 'update', 'write_off');
