"""SQL only: files, the catalog of models, the ledger of jobs, their results.

SQL is the truth; a message to the broker is only a hint.
"""
