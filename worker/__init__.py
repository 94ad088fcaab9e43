"""The worker: Celery processes that compute chunks of jobs, and the dispatcher that sees that none
is forgotten."""
