"""The Celery side: claims chunks of jobs, computes them with the engine and commits their results."""
