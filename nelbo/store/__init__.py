"""SQL only: the catalog of files and models, the ledger of jobs, their results. SQL is the truth; a message is a hint."""
