"""SQL only: files, the catalog of models, the ledger of jobs, their results. SQL is the truth; a
message is a hint."""
