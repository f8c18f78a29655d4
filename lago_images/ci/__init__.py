"""What only CI needs: its events, GitHub, the report, and what ``init`` writes."""
