"""Hold what only CI needs: its events, GitHub, the report, and the files that ``init`` writes."""
