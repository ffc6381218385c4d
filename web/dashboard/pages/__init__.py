"""The pages, one module each: read what is asked, ask the log or ClickHouse, hand it to a template."""
