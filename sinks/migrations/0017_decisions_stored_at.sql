ALTER TABLE decisions ADD COLUMN IF NOT EXISTS stored_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When ClickHouse took it.'
