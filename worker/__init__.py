"""The worker: Celery processes that compute chunks of jobs, and a dispatcher.

The dispatcher makes sure that no chunk is forgotten.
"""
