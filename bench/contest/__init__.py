"""Contestants side by side: who competes, one timed cell of a table, the judge of lengths, and the reports."""
