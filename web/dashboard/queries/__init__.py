"""What the pages ask ClickHouse. SQL over the documented views; values are parameters, never part of the text."""
