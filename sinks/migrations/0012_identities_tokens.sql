ALTER TABLE identities MODIFY SETTING non_replicated_deduplication_window = 1000
