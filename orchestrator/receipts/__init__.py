"""Receipts: one file that shows a stranger, offline, who computed what on which evidence."""
