ALTER TABLE decisions MODIFY SETTING non_replicated_deduplication_window = 1000
