"""The command line: its options, and what each verb does.

Nothing is imported here, so that a verb loads only what it needs.
"""
