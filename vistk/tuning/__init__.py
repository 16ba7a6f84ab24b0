"""``vistk tune``: association knobs searched on cached queries, and judged on other videos."""
