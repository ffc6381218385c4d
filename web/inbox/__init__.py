"""The inbox that people read in the pages and apps of a shop. See docs/inbox.md.

    app.py       `/inbox`: her messages, and that she has read some
    queries.py   what ClickHouse has of them
"""
