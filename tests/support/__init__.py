"""What the tests share: data, processes, browsers, and parts that fail."""
